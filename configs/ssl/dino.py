"""DINO on the digits: Caron et al. 2021, https://arxiv.org/abs/2104.14294.

kdjax --config=configs/ssl/dino.py --workdir=DIR
"""

from ml_collections import ConfigDict
from ssl_digits import ramp, run

STAGE = dict(
    method=dict(
        name="dino",
        prototypes=64,
        teacher_temperature=0.02,
        momentum=ramp(0.99, shape="cosine"),
        freeze_steps=60,
    ),
)


def get_config(arg: str | None = None) -> ConfigDict:
    return run(arg, dino=STAGE)
