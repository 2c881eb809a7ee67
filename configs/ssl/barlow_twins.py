"""Barlow Twins on the digits: Zbontar et al. 2021, https://arxiv.org/abs/2103.03230.

kdjax --config=configs/ssl/barlow_twins.py --workdir=DIR
"""

from ml_collections import ConfigDict
from ssl_digits import run

STAGE = dict(method=dict(name="barlow_twins", off_diagonal_weight=0.01), projector=[256, 256, 256])


def get_config(arg: str | None = None) -> ConfigDict:
    return run(arg, barlow_twins=STAGE)
