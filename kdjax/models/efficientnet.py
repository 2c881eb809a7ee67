"""EfficientNet-B0, made of MobileNet's inverted residuals."""

import flax.linen as nn

from kdjax.models.blocks import Compute, require_positive
from kdjax.models.inverted_residual import MobileNet, Squeeze, rounded, staged_rows

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


def efficientnet_b0(
    *, multiplier: float = 1.0, imagenet_stem: bool = False, compute: Compute = Compute()
) -> MobileNet:
    """EfficientNet-B0: swish, and squeeze-and-excitation in every block; 1280 features.

    A squeeze has a quarter of the channels that arrive at its block, before the expansion. BatchNorm
    has the epsilon and the momentum of `ConvNorm` (the authors' are 1e-3 and 0.99). There is no
    stochastic depth and no dropout.

    Args:
      multiplier: of the widths, which are then `rounded`; 1 is B0, and B1 to B7 change the depth too.
      imagenet_stem: the stem has stride 2, as published; otherwise 1, for small images.
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
        compute=compute,
    )
