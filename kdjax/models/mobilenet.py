"""Networks of inverted residuals with depthwise convolutions: MobileNetV2 and V3.

What a block has (expansion, squeeze-and-excitation, residual) is stated in its row of a table, never
found by comparing widths, so that a shrunk network keeps its structure. Depthwise convolutions and
gates take as many channels as arrive.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from kdjax.models.blocks import Compute, ConvNorm, require_positive

Activation = Callable[[Array], Array]


def _hard_swish(x: Array) -> Array:
    """Looked up in `jax.nn` when it is called, where an exporter has one operation of its own for it."""
    return jax.nn.hard_swish(x)


def _hard_sigmoid(x: Array) -> Array:
    return jax.nn.hard_sigmoid(x)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Squeeze:
    """A squeeze-and-excitation.

    Attributes:
      width: channels of its hidden layer.
      activation: of the hidden layer.
      gate: of its output, into [0, 1].
    """

    width: int
    activation: Activation
    gate: Activation


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One inverted residual, as a row of a table.

    Attributes:
      kernel_size: of the depthwise convolution.
      expanded: output channels of the 1x1 convolution before it, None where there is none.
      features: output channels.
      stride: of the depthwise convolution.
      activation: after every convolution but the last.
      residual: the input is added to the output.
      squeeze: what follows the depthwise convolution, None for nothing.
    """

    kernel_size: int
    expanded: int | None
    features: int
    stride: int
    activation: Activation
    residual: bool
    squeeze: Squeeze | None = None


class SqueezeExcitation(nn.Module):
    """Scales each channel by a gate that sees the mean over space of all channels.

    Reference: Hu et al. 2017, https://arxiv.org/abs/1709.01507, eq. 2 to 4.
    """

    of: Squeeze
    compute: Compute

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channel"]
    ) -> Float[Array, "batch height width channel"]:
        """`x` times its gates."""
        dense = functools.partial(
            nn.Dense,
            dtype=self.compute.dtype,
            kernel_init=nn.initializers.variance_scaling(2.0, "fan_out", "normal"),
        )
        gate = dense(self.of.width, name="reduce")(x.mean(axis=(1, 2)))
        gate = dense(x.shape[-1], name="expand")(self.of.activation(gate))
        return x * jnp.expand_dims(self.of.gate(gate), (1, 2))


class InvertedResidual(nn.Module):
    """1x1 to more channels, a depthwise convolution, 1x1 to fewer: what `row` says of it.

    References: Sandler et al. 2018, https://arxiv.org/abs/1801.04381, fig. 4; Howard et al. 2019,
    https://arxiv.org/abs/1905.02244, fig. 4.
    """

    row: Row
    compute: Compute

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channel"], *, train: bool
    ) -> Float[Array, "batch out_height out_width features"]:
        """No activation after the last convolution, nor after the sum."""
        row, conv = self.row, functools.partial(ConvNorm, compute=self.compute)
        y = x
        if row.expanded is not None:
            y = row.activation(conv(row.expanded, kernel_size=1, name="expand")(y, train=train))
        channels = y.shape[-1]
        depthwise = conv(
            channels,
            kernel_size=row.kernel_size,
            stride=row.stride,
            groups=channels,
            name="depthwise",
        )
        y = row.activation(depthwise(y, train=train))
        if row.squeeze is not None:
            y = SqueezeExcitation(row.squeeze, self.compute, name="excite")(y)
        y = conv(row.features, kernel_size=1, name="project")(y, train=train)
        return x + y if row.residual else y


class MobileNet(nn.Module):
    """A 3x3 stem, inverted residuals, a 1x1 convolution, the mean over space, perhaps a dense layer.

    Attributes:
      stem_width: channels of the stem.
      stem_stride: 2 as published, 1 for small images.
      rows: the inverted residuals.
      last_width: channels of the 1x1 convolution after them.
      hidden_width: of the dense layer that gives the features, None where there is none.
      activation: of the layers that are in no row.
      compute: see `Compute`.
    """

    stem_width: int
    stem_stride: int
    rows: Sequence[Row]
    last_width: int
    activation: Activation
    hidden_width: int | None = None
    compute: Compute = Compute()

    @nn.compact
    def __call__(
        self, image: Float[Array, "batch height width channel"], *, train: bool
    ) -> Float[Array, "batch dim"]:
        """The features, float32, `dim = hidden_width`, or `last_width` where that is None."""
        conv = functools.partial(ConvNorm, compute=self.compute)
        x = image.astype(self.compute.dtype)
        x = self.activation(
            conv(self.stem_width, stride=self.stem_stride, name="stem")(x, train=train)
        )
        for i, row in enumerate(self.rows):
            x = InvertedResidual(row, self.compute, name=f"block{i}")(x, train=train)
        x = self.activation(conv(self.last_width, kernel_size=1, name="last")(x, train=train))
        x = x.mean(axis=(1, 2))
        if self.hidden_width is not None:
            hidden = nn.Dense(
                self.hidden_width,
                dtype=self.compute.dtype,
                kernel_init=nn.initializers.normal(0.01),
                name="hidden",
            )
            x = self.activation(hidden(x))
        return x.astype(jnp.float32)


def rounded(width: float | int) -> int:
    """The multiple of 8 nearest to `width` (half up), at least 8 and at least 0.9 of `width`.

    Sandler et al. 2018, https://arxiv.org/abs/1801.04381, as its authors' code has it.
    """
    nearest = max(8, int(width + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * width else nearest


def staged_rows(
    table: Sequence[tuple[int, int, int, int, int]],
    *,
    stem_width: int,
    multiplier: float,
    activation: Activation,
    squeeze: Callable[[int], Squeeze | None],
) -> tuple[Row, ...]:
    """Rows of stages whose first block alone strides and whose later blocks alone add their input.

    Args:
      table: kernel size, expansion (of a block's input; 1 for none), features, blocks and stride of
        each stage.
      stem_width: channels that arrive at the first block.
      multiplier: of the features, which are then `rounded`.
      activation: of every row.
      squeeze: from the channels that arrive at a block.
    """
    rows, arriving = [], stem_width
    for kernel_size, expansion, features, blocks, stride in table:
        for i in range(blocks):
            row = Row(
                kernel_size=kernel_size,
                expanded=expansion * arriving if expansion > 1 else None,
                features=rounded(multiplier * features),
                stride=stride if i == 0 else 1,
                activation=activation,
                residual=i > 0,
                squeeze=squeeze(arriving),
            )
            rows.append(row)
            arriving = row.features
    return tuple(rows)


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
    *, multiplier: float = 1.0, imagenet_stem: bool = False, compute: Compute = Compute()
) -> MobileNet:
    """MobileNetV2: 1280 features, more only with a multiplier above 1. No dropout.

    These are the paper's widths. The `mobile_half` of the CIFAR distillation tables has half of them
    without rounding to multiples of 8, an expansion in its first block, and ReLU for ReLU6; it keeps
    the size of the image in its second stage, where this one does in its stem. With 100 classes it
    has 812,836 parameters; this one, with a multiplier of 0.5, 815,780.

    Args:
      multiplier: of the widths, which are then `rounded`.
      imagenet_stem: the stem has stride 2, as published; otherwise 1, for small images.
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
        compute=compute,
    )


def mobilenet_v3_large(
    *,
    multiplier: float = 1.0,
    activation: Swish = "hard_swish",
    imagenet_stem: bool = False,
    compute: Compute = Compute(),
) -> MobileNet:
    """MobileNetV3-Large. The features are the 1280 of its dense layer, after hard swish.

    Every width is multiplied, that of the features too. BatchNorm has the epsilon and the momentum
    of `ConvNorm` (the authors' are 1e-3 and 0.99), and there is no dropout.

    Args:
      multiplier: of the widths, which are then `rounded`.
      activation: of what has hard swish in the paper's tables. In ONNX that is two operators more in
        int8; `relu` is a part of the convolution and faster.
      imagenet_stem: the stem has stride 2, as published; otherwise 1, for small images.
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
        compute=compute,
    )


def mobilenet_v3_small(
    *,
    multiplier: float = 1.0,
    activation: Swish = "hard_swish",
    imagenet_stem: bool = False,
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
        compute=compute,
    )
