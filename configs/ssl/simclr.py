"""SimCLR on the digits: Chen et al. 2020, https://arxiv.org/abs/2002.05709.

kdjax --config=configs/ssl/simclr.py --workdir=DIR
"""

from ml_collections import ConfigDict
from ssl_digits import run

STAGE = dict(method=dict(name="simclr", temperature=0.2))


def get_config(arg: str | None = None) -> ConfigDict:
    return run(arg, simclr=STAGE)
