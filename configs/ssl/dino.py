"""DINO on the digits: Caron et al. 2021, https://arxiv.org/abs/2104.14294.

kdjax --config=configs/ssl/dino.py --workdir=DIR
"""

from ml_collections import ConfigDict
from ssl_digits import SMALL_VIEWS, ramp, run

STAGE = dict(
    method=dict(
        name="dino",
        prototypes=256,
        teacher_temperature=ramp(0.04, 0.07, end_step=100),
        momentum=ramp(0.95, shape="cosine"),
        freeze_steps=11,
        local_crops=2,
        local_views=SMALL_VIEWS,
    ),
)


def get_config(arg: str | None = None) -> ConfigDict:
    return run(arg, dino=STAGE)
