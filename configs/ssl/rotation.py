"""Rotation prediction on the digits: Gidaris et al. 2018, https://arxiv.org/abs/1803.07728.

kdjax --config=configs/ssl/rotation.py --workdir=DIR
"""

from ml_collections import ConfigDict
from ssl_digits import run

STAGE = dict(method=dict(name="rotation"), projector=[])


def get_config(arg: str | None = None) -> ConfigDict:
    return run(arg, rotation=STAGE)
