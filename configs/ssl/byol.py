"""BYOL on the digits: Grill et al. 2020, https://arxiv.org/abs/2006.07733.

kdjax --config=configs/ssl/byol.py --workdir=DIR
"""

from ml_collections import ConfigDict
from ssl_digits import ramp, run

STAGE = dict(
    method=dict(name="byol", predictor=[256], momentum=ramp(0.95, shape="cosine")),
    optimizer=dict(learning_rate=1e-3),
)


def get_config(arg: str | None = None) -> ConfigDict:
    return run(arg, byol=STAGE)
