"""Networks of inverted residuals with depthwise convolutions, as MobileNets and EfficientNets are.

What a block has (expansion, squeeze-and-excitation, residual) is stated in its row of a table, never
found by comparing widths, so that a shrunk network keeps its structure. Depthwise convolutions and
gates take as many channels as arrive.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from kdjax.models.blocks import Compute, Convention, ConvNorm

Activation = Callable[[Array], Array]


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
    convention: Convention = Convention()

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channel"], *, train: bool
    ) -> Float[Array, "batch out_height out_width features"]:
        """No activation after the last convolution, nor after the sum."""
        row = self.row
        conv = functools.partial(ConvNorm, convention=self.convention, compute=self.compute)
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
      convention: of all convolutions and their BatchNorms, see `Convention`.
      compute: see `Compute`.
    """

    stem_width: int
    stem_stride: int
    rows: Sequence[Row]
    last_width: int
    activation: Activation
    hidden_width: int | None = None
    convention: Convention = Convention()
    compute: Compute = Compute()

    @nn.compact
    def __call__(
        self, image: Float[Array, "batch height width channel"], *, train: bool
    ) -> Float[Array, "batch dim"]:
        """The features, float32, `dim = hidden_width`, or `last_width` where that is None."""
        conv = functools.partial(ConvNorm, convention=self.convention, compute=self.compute)
        x = image.astype(self.compute.dtype)
        x = self.activation(
            conv(self.stem_width, stride=self.stem_stride, name="stem")(x, train=train)
        )
        for i, row in enumerate(self.rows):
            block = InvertedResidual(row, self.compute, self.convention, name=f"block{i}")
            x = block(x, train=train)
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
