"""The published MobileNets, V2 and V3, as tables of inverted residuals."""

import functools
from collections.abc import Mapping
from typing import Literal

import flax.linen as nn
import jax
from jaxtyping import Array

from kdjax.models.blocks import Compute, Convention, require_positive
from kdjax.models.inverted_residual import (
    Activation,
    MobileNet,
    Row,
    Squeeze,
    rounded,
    staged_rows,
)


def _hard_swish(x: Array) -> Array:
    """Looked up in `jax.nn` when it is called, where an exporter has one operation of its own for it."""
    return jax.nn.hard_swish(x)


def _hard_sigmoid(x: Array) -> Array:
    return jax.nn.hard_sigmoid(x)


_V2 = (
    (3, 1, 16, 1, 1),
    (3, 6, 24, 2, 2),
    (3, 6, 32, 3, 2),
    (3, 6, 64, 4, 2),
    (3, 6, 96, 3, 1),
    (3, 6, 160, 3, 2),
    (3, 6, 320, 1, 1),
)


def mobilenet_v2(
    *,
    multiplier: float = 1.0,
    imagenet_stem: bool = False,
    convention: Convention = Convention(),
    compute: Compute = Compute(),
) -> MobileNet:
    """MobileNetV2: 1280 features, more only with a multiplier above 1. No dropout.

    These are the paper's widths. The `mobile_half` of the CIFAR distillation tables has half of them
    without rounding to multiples of 8, an expansion in its first block, and ReLU for ReLU6; it keeps
    the size of the image in its second stage, where this one does in its stem. With 100 classes it
    has 812,836 parameters; this one, with a multiplier of 0.5, 815,780.

    Args:
      multiplier: of the widths, which are then `rounded`.
      imagenet_stem: the stem has stride 2, as published; otherwise 1, for small images.
      convention: of padding and BatchNorm; weights that come from TensorFlow need its own.
      compute: see `Compute`.

    Raises:
      BadInput: the multiplier is not positive.

    Reference: Sandler et al. 2018, https://arxiv.org/abs/1801.04381, table 2.
    """
    require_positive("encoder.multiplier", multiplier)
    stem_width = rounded(32 * multiplier)
    return MobileNet(
        stem_width=stem_width,
        stem_stride=2 if imagenet_stem else 1,
        rows=staged_rows(
            _V2,
            stem_width=stem_width,
            multiplier=multiplier,
            activation=nn.relu6,
            squeeze=lambda arriving: None,
        ),
        last_width=rounded(1280 * max(1.0, multiplier)),
        activation=nn.relu6,
        convention=convention,
        compute=compute,
    )


Swish = Literal["hard_swish", "relu"]
_SWISH: Mapping[Swish, Activation] = {"hard_swish": _hard_swish, "relu": nn.relu}


def _v3_row(
    kernel_size: int,
    expanded: int,
    features: int,
    *,
    multiplier: float,
    activation: Swish,
    stride: int = 1,
    expand: bool = True,
    excite: bool = False,
    swish: bool = False,
    residual: bool = False,
) -> Row:
    """A row of the paper's tables; `swish` says which have `activation`, the others have ReLU."""
    width = rounded(multiplier * expanded)
    squeeze = Squeeze(width=rounded(width // 4), activation=nn.relu, gate=_hard_sigmoid)
    return Row(
        kernel_size=kernel_size,
        expanded=width if expand else None,
        features=rounded(multiplier * features),
        stride=stride,
        activation=_SWISH[activation] if swish else nn.relu,
        residual=residual,
        squeeze=squeeze if excite else None,
    )


def _v3(
    rows: tuple[Row, ...],
    *,
    last: int,
    hidden: int,
    multiplier: float,
    activation: Swish,
    imagenet_stem: bool,
    convention: Convention,
    compute: Compute,
) -> MobileNet:
    require_positive("encoder.multiplier", multiplier)
    return MobileNet(
        stem_width=rounded(16 * multiplier),
        stem_stride=2 if imagenet_stem else 1,
        rows=rows,
        last_width=rounded(last * multiplier),
        hidden_width=rounded(hidden * multiplier),
        activation=_SWISH[activation],
        convention=convention,
        compute=compute,
    )


def mobilenet_v3_large(
    *,
    multiplier: float = 1.0,
    activation: Swish = "hard_swish",
    imagenet_stem: bool = False,
    convention: Convention = Convention(),
    compute: Compute = Compute(),
) -> MobileNet:
    """MobileNetV3-Large. The features are the 1280 of its dense layer, after hard swish.

    Every width is multiplied, that of the features too. The authors' BatchNorm has an epsilon of 1e-3
    and a momentum of 0.99, which is not the default `convention`. There is no dropout.

    Args:
      multiplier: of the widths, which are then `rounded`.
      activation: of what has hard swish in the paper's tables. In ONNX that is two operators more in
        int8; `relu` is a part of the convolution and faster.
      imagenet_stem: the stem has stride 2, as published; otherwise 1, for small images.
      convention: of padding and BatchNorm; weights that come from TensorFlow need its own.
      compute: see `Compute`.

    Raises:
      BadInput: the multiplier is not positive.

    Reference: Howard et al. 2019, https://arxiv.org/abs/1905.02244, table 1.
    """
    row = functools.partial(_v3_row, multiplier=multiplier, activation=activation)
    rows = (
        row(3, 16, 16, expand=False, residual=True),
        row(3, 64, 24, stride=2),
        row(3, 72, 24, residual=True),
        row(5, 72, 40, stride=2, excite=True),
        row(5, 120, 40, excite=True, residual=True),
        row(5, 120, 40, excite=True, residual=True),
        row(3, 240, 80, stride=2, swish=True),
        row(3, 200, 80, swish=True, residual=True),
        row(3, 184, 80, swish=True, residual=True),
        row(3, 184, 80, swish=True, residual=True),
        row(3, 480, 112, excite=True, swish=True),
        row(3, 672, 112, excite=True, swish=True, residual=True),
        row(5, 672, 160, stride=2, excite=True, swish=True),
        row(5, 960, 160, excite=True, swish=True, residual=True),
        row(5, 960, 160, excite=True, swish=True, residual=True),
    )
    return _v3(
        rows,
        last=960,
        hidden=1280,
        multiplier=multiplier,
        activation=activation,
        imagenet_stem=imagenet_stem,
        convention=convention,
        compute=compute,
    )


def mobilenet_v3_small(
    *,
    multiplier: float = 1.0,
    activation: Swish = "hard_swish",
    imagenet_stem: bool = False,
    convention: Convention = Convention(),
    compute: Compute = Compute(),
) -> MobileNet:
    """MobileNetV3-Small. The features are the 1024 of its dense layer; else as the large one.

    Reference: Howard et al. 2019, https://arxiv.org/abs/1905.02244, table 2.
    """
    row = functools.partial(_v3_row, multiplier=multiplier, activation=activation)
    rows = (
        row(3, 16, 16, stride=2, expand=False, excite=True),
        row(3, 72, 24, stride=2),
        row(3, 88, 24, residual=True),
        row(5, 96, 40, stride=2, excite=True, swish=True),
        row(5, 240, 40, excite=True, swish=True, residual=True),
        row(5, 240, 40, excite=True, swish=True, residual=True),
        row(5, 120, 48, excite=True, swish=True),
        row(5, 144, 48, excite=True, swish=True, residual=True),
        row(5, 288, 96, stride=2, excite=True, swish=True),
        row(5, 576, 96, excite=True, swish=True, residual=True),
        row(5, 576, 96, excite=True, swish=True, residual=True),
    )
    return _v3(
        rows,
        last=576,
        hidden=1024,
        multiplier=multiplier,
        activation=activation,
        imagenet_stem=imagenet_stem,
        convention=convention,
        compute=compute,
    )
