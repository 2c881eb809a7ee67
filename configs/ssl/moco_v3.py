"""MoCo v3 on the digits: Chen, Xie & He 2021, https://arxiv.org/abs/2104.02057.

kdjax --config=configs/ssl/moco_v3.py --workdir=DIR
"""

from ml_collections import ConfigDict
from ssl_digits import ramp, run

STAGE = dict(
    method=dict(name="moco_v3", predictor=[256], momentum=ramp(0.95, shape="cosine")),
)


def get_config(arg: str | None = None) -> ConfigDict:
    return run(arg, moco_v3=STAGE)
