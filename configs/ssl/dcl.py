"""DCL, the decoupled contrastive loss, on the digits: Yeh et al. 2021, https://arxiv.org/abs/2110.06848.

kdjax --config=configs/ssl/dcl.py --workdir=DIR
"""

from ml_collections import ConfigDict
from ssl_digits import run

STAGE = dict(method=dict(name="dcl", temperature=0.2))


def get_config(arg: str | None = None) -> ConfigDict:
    return run(arg, dcl=STAGE)
