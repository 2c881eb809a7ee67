"""MoCo v2 on the digits: Chen et al. 2020, https://arxiv.org/abs/2003.04297.

kdjax --config=configs/ssl/moco_v2.py --workdir=DIR
"""

from ml_collections import ConfigDict
from ssl_digits import run

STAGE = dict(method=dict(name="moco_v2", queue=1024, temperature=0.2, momentum=0.99))


def get_config(arg: str | None = None) -> ConfigDict:
    return run(arg, moco_v2=STAGE)
