"""ShuffleNetV2: half of the channels pass a block as they are, and the halves are mixed after it."""

import functools
from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from kdjax.models.blocks import Compute, ConvNorm
from kdjax.types import BadInput

# Channels of the stages by the multiplier, and of the 1x1 convolution after them.
_WIDTHS = {
    0.5: ((48, 96, 192), 1024),
    1.0: ((116, 232, 464), 1024),
    1.5: ((176, 352, 704), 1024),
    2.0: ((244, 488, 976), 2048),
}

MULTIPLIERS = tuple(_WIDTHS)
"""Of the widths, those of the paper."""


def shuffle(x: Float[Array, "*batch channel"], groups: int) -> Float[Array, "*batch channel"]:
    """The channels of all groups in turn: the first of each, the second of each, and so on.

    Reference: Zhang et al. 2017, https://arxiv.org/abs/1707.01083, fig. 1.
    """
    apart = x.reshape(*x.shape[:-1], groups, x.shape[-1] // groups)
    return apart.swapaxes(-1, -2).reshape(x.shape)


class ShuffleUnit(nn.Module):
    """One half of the channels as it is, the other through 1x1, 3x3 depthwise and 1x1; then a shuffle.

    A unit that strides has all of its channels on both sides, and a 3x3 depthwise and a 1x1 convolution
    on the one without anything otherwise.

    Attributes:
      width: of each half of what it gives.
      stride: 2 where the unit halves the image.
      compute: see `Compute`.

    Reference: Ma et al. 2018, https://arxiv.org/abs/1807.11164, fig. 3c and 3d.
    """

    width: int
    stride: int
    compute: Compute

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channel"], *, train: bool
    ) -> Float[Array, "batch out_height out_width channels"]:
        """Twice `width` channels."""
        conv = functools.partial(ConvNorm, compute=self.compute)

        def depthwise(x: Array, name: str) -> Array:
            channels = x.shape[-1]
            layer = conv(channels, stride=self.stride, groups=channels, name=name)
            return layer(x, train=train)

        if self.stride > 1:
            left = depthwise(x, "left_depthwise")
            left = nn.relu(conv(self.width, kernel_size=1, name="left_project")(left, train=train))
            right = x
        else:
            left, right = jnp.split(x, 2, axis=-1)
        right = nn.relu(conv(self.width, kernel_size=1, name="expand")(right, train=train))
        right = depthwise(right, "depthwise")
        right = nn.relu(conv(self.width, kernel_size=1, name="project")(right, train=train))
        return shuffle(jnp.concatenate([left, right], axis=-1), 2)


class ShuffleNetV2(nn.Module):
    """A 3x3 stem, stages of shuffle units, a 1x1 convolution, the mean over space.

    Attributes:
      stem_width: channels of the stem.
      widths: channels of each stage, whose first unit halves the image.
      units: units of each stage.
      last_width: channels of the 1x1 convolution.
      imagenet_stem: stride 2, and 3x3 max-pooling with stride 2, instead of stride 1 and no pooling.
      compute: see `Compute`.

    Reference: Ma et al. 2018, https://arxiv.org/abs/1807.11164, table 5.
    """

    stem_width: int
    widths: Sequence[int]
    units: Sequence[int]
    last_width: int
    imagenet_stem: bool = False
    compute: Compute = Compute()

    @nn.compact
    def __call__(
        self, image: Float[Array, "batch height width channel"], *, train: bool
    ) -> Float[Array, "batch dim"]:
        """The features, float32, `dim = last_width`."""
        conv = functools.partial(ConvNorm, compute=self.compute)
        stem = conv(self.stem_width, stride=2 if self.imagenet_stem else 1, name="stem")
        x = nn.relu(stem(image.astype(self.compute.dtype), train=train))
        if self.imagenet_stem:
            x = nn.pool(x, -jnp.inf, lax.max, (3, 3), (2, 2), ((1, 1), (1, 1)))
        for stage, (units, width) in enumerate(zip(self.units, self.widths, strict=True)):
            for i in range(units):
                x = ShuffleUnit(
                    width // 2,
                    stride=2 if i == 0 else 1,
                    compute=self.compute,
                    name=f"stage{stage}_unit{i}",
                )(x, train=train)
        x = nn.relu(conv(self.last_width, kernel_size=1, name="last")(x, train=train))
        return x.mean(axis=(1, 2)).astype(jnp.float32)


def shufflenet_v2(
    *, multiplier: float = 1.0, imagenet_stem: bool = False, compute: Compute = Compute()
) -> ShuffleNetV2:
    """ShuffleNetV2 x0.5, x1, x1.5 or x2, as torchvision has it: 1024 features, 2048 of the last.

    Args:
      multiplier: 0.5, 1, 1.5 or 2; the widths of the others are in no table.
      imagenet_stem: as published; otherwise the stem leaves the image as large as it is.
      compute: see `Compute`.

    Raises:
      BadInput: there is no such multiplier.

    Reference: Ma et al. 2018, https://arxiv.org/abs/1807.11164, table 5.
    """
    if multiplier not in _WIDTHS:
        raise BadInput(
            "encoder.multiplier",
            f"{multiplier:g} is not one of the paper's",
            f"take {', '.join(f'{known:g}' for known in MULTIPLIERS)}",
        )
    widths, last_width = _WIDTHS[multiplier]
    return ShuffleNetV2(
        stem_width=24,
        widths=widths,
        units=(4, 8, 4),
        last_width=last_width,
        imagenet_stem=imagenet_stem,
        compute=compute,
    )
