"""VICReg on the digits: Bardes et al. 2021, https://arxiv.org/abs/2105.04906.

kdjax --config=configs/ssl/vicreg.py --workdir=DIR
"""

from ml_collections import ConfigDict
from ssl_digits import run

STAGE = dict(method=dict(name="vicreg"), projector=[256, 256, 256])


def get_config(arg: str | None = None) -> ConfigDict:
    return run(arg, vicreg=STAGE)
