"""SimSiam on the digits: Chen & He 2020, https://arxiv.org/abs/2011.10566.

kdjax --config=configs/ssl/simsiam.py --workdir=DIR
"""

from ml_collections import ConfigDict
from ssl_digits import run

STAGE = dict(
    method=dict(name="simsiam", bottleneck=32),
    projector=[256, 256, 128],
    optimizer=dict(learning_rate=1e-3),
)


def get_config(arg: str | None = None) -> ConfigDict:
    return run(arg, simsiam=STAGE)
