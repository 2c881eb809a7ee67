"""MAE, with a small vision transformer on the digits: He et al. 2021, https://arxiv.org/abs/2111.06377.

kdjax --config=configs/ssl/mae.py --workdir=DIR
"""

from ml_collections import ConfigDict
from ssl_digits import run

STAGE = dict(
    method=dict(name="mae", share=0.5, normalize=False, decoder_width=64, decoder_depth=1),
    encoder=dict(name="vit", width=64, depth=4, heads=4, mlp=256, patch=2),
    projector=[],
)


def get_config(arg: str | None = None) -> ConfigDict:
    return run(arg, mae=STAGE)
