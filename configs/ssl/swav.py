"""SwAV on the digits: Caron et al. 2020, https://arxiv.org/abs/2006.09882.

kdjax --config=configs/ssl/swav.py --workdir=DIR
"""

from ml_collections import ConfigDict
from ssl_digits import run

STAGE = dict(method=dict(name="swav", prototypes=32, epsilon=0.02, freeze_steps=60))


def get_config(arg: str | None = None) -> ConfigDict:
    return run(arg, swav=STAGE)
