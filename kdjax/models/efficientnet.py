"""EfficientNet-B0 and the EfficientNet-Lites, made of MobileNet's inverted residuals."""

import math

import flax.linen as nn

from kdjax.models.blocks import Compute, Convention, require_positive
from kdjax.models.inverted_residual import MobileNet, Squeeze, rounded, staged_rows
from kdjax.types import BadInput

# Kernel size, expansion, features, blocks and stride of each stage.
_B0 = (
    (3, 1, 16, 1, 1),
    (3, 6, 24, 2, 2),
    (5, 6, 40, 2, 2),
    (3, 6, 80, 3, 2),
    (5, 6, 112, 3, 1),
    (5, 6, 192, 4, 2),
    (3, 6, 320, 1, 1),
)

_LITES = {0: (1.0, 1.0), 1: (1.0, 1.1), 2: (1.1, 1.2)}
"""Of the widths and of the blocks of B0, by the number in the network's name."""


def efficientnet_b0(
    *,
    multiplier: float = 1.0,
    imagenet_stem: bool = False,
    convention: Convention = Convention(),
    compute: Compute = Compute(),
) -> MobileNet:
    """EfficientNet-B0: swish, and squeeze-and-excitation in every block; 1280 features.

    A squeeze has a quarter of the channels that arrive at its block, before the expansion. The authors'
    BatchNorm has an epsilon of 1e-3 and a momentum of 0.99, which is not the default `convention`. There
    is no stochastic depth and no dropout.

    Args:
      multiplier: of the widths, which are then `rounded`; 1 is B0, and B1 to B7 change the depth too.
      imagenet_stem: the stem has stride 2, as published; otherwise 1, for small images.
      convention: of padding and BatchNorm; weights that come from TensorFlow need its own.
      compute: see `Compute`.

    Raises:
      BadInput: the multiplier is not positive.

    Reference: Tan and Le 2019, https://arxiv.org/abs/1905.11946, table 1.
    """
    require_positive("encoder.multiplier", multiplier)
    stem_width = rounded(32 * multiplier)
    return MobileNet(
        stem_width=stem_width,
        stem_stride=2 if imagenet_stem else 1,
        rows=staged_rows(
            _B0,
            stem_width=stem_width,
            multiplier=multiplier,
            activation=nn.swish,
            squeeze=lambda arriving: Squeeze(
                width=max(1, arriving // 4), activation=nn.swish, gate=nn.sigmoid
            ),
        ),
        last_width=rounded(1280 * multiplier),
        activation=nn.swish,
        convention=convention,
        compute=compute,
    )


def efficientnet_lite(
    size: int,
    *,
    multiplier: float = 1.0,
    imagenet_stem: bool = False,
    convention: Convention = Convention(),
    compute: Compute = Compute(),
) -> MobileNet:
    """EfficientNet-Lite0, 1 or 2: ReLU6 and no squeeze-and-excitation; 1280 features.

    What makes B0 larger, in width and in depth, leaves the stem, the 1x1 convolution at the end and the
    numbers of blocks of the first and the last stage as they are. All published weights come from
    TensorFlow: they need its `convention`, an epsilon of 1e-3 and the padding `same`. There is no
    stochastic depth and no dropout.

    Args:
      size: the number in its name; the published ones see images of 224, 240 and 260 pixels.
      multiplier: of all widths, also the stem's and the features', which are then `rounded`; 1 is what
        was published.
      imagenet_stem: the stem has stride 2, as published; otherwise 1, for small images.
      convention: of padding and BatchNorm.
      compute: see `Compute`.

    Raises:
      BadInput: there is no such network.

    Reference: Liu 2020, "Higher accuracy on vision models with EfficientNet-Lite",
    https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite.
    """
    require_positive("encoder.multiplier", multiplier)
    if size not in _LITES:
        raise BadInput("encoder.size", f"{size} is not one of {', '.join(map(str, _LITES))}")
    wider, deeper = _LITES[size]
    ends = (0, len(_B0) - 1)
    stem_width = rounded(32 * multiplier)
    return MobileNet(
        stem_width=stem_width,
        stem_stride=2 if imagenet_stem else 1,
        rows=staged_rows(
            [
                (*row[:3], row[3] if stage in ends else math.ceil(deeper * row[3]), row[4])
                for stage, row in enumerate(_B0)
            ],
            stem_width=stem_width,
            multiplier=wider * multiplier,
            activation=nn.relu6,
            squeeze=lambda arriving: None,
        ),
        last_width=rounded(1280 * multiplier),
        activation=nn.relu6,
        convention=convention,
        compute=compute,
    )
