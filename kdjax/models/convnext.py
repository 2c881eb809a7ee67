"""ConvNeXt: a convolutional network with the parts of a transformer."""

import functools
from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from kdjax.models.blocks import Compute, require_positive
from kdjax.types import BadInput

_INIT = nn.initializers.truncated_normal(0.02)


class ConvNeXtBlock(nn.Module):
    """A 7x7 depthwise convolution, a LayerNorm and an MLP on each pixel, scaled and added to the input.

    Attributes:
      layer_scale: what the scale of each channel begins with; None for no scale.
      compute: see `Compute`.

    Reference: Liu et al. 2022, https://arxiv.org/abs/2201.03545, fig. 4.
    """

    layer_scale: float | None
    compute: Compute

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channel"]
    ) -> Float[Array, "batch height width channel"]:
        """As many channels as came, four times as many inside of the MLP; GELU is the exact one."""
        dtype, channels = self.compute.dtype, x.shape[-1]
        conv = functools.partial(nn.Conv, dtype=dtype, kernel_init=_INIT)
        depthwise = conv(
            channels, (7, 7), padding=3, feature_group_count=channels, name="depthwise"
        )
        y = nn.LayerNorm(dtype=dtype, name="norm")(depthwise(x))
        # LiteRT has no dense layer on each pixel; it is a 1x1 convolution.
        y = nn.gelu(conv(4 * channels, (1, 1), name="expand")(y), approximate=False)
        y = conv(channels, (1, 1), name="project")(y)
        if self.layer_scale is not None:
            scale = self.param("scale", nn.initializers.constant(self.layer_scale), (channels,))
            y = y * jnp.expand_dims(scale.astype(y.dtype), (0, 1, 2))
        return x + y


class ConvNeXt(nn.Module):
    """Patches, stages of blocks with a 2x2 convolution between them, the mean over space, a LayerNorm.

    Every LayerNorm has an epsilon of 1e-6. There is no stochastic depth: training and evaluation are
    the same.

    Attributes:
      depths: blocks of each stage.
      widths: channels of each stage.
      patch: side of the stem's convolution, which is its stride; 4 as published.
      layer_scale: see `ConvNeXtBlock`.
      compute: see `Compute`.

    Reference: Liu et al. 2022, https://arxiv.org/abs/2201.03545, table 9.
    """

    depths: Sequence[int]
    widths: Sequence[int]
    patch: int = 4
    layer_scale: float | None = 1e-6
    compute: Compute = Compute()

    @nn.compact
    def __call__(
        self, image: Float[Array, "batch height width channel"], *, train: bool
    ) -> Float[Array, "batch dim"]:
        """The features, float32, `dim = widths[-1]`. What is left over of the sides is cut off.

        Args:
          image: normalised.
          train: makes no difference.

        Raises:
          BadInput: the image is too small: nothing would be left of it.
        """
        height, width = image.shape[1:3]
        smallest = self.patch * 2 ** (len(self.depths) - 1)
        if min(height, width) < smallest:
            raise BadInput(
                "encoder.patch",
                f"of an image of {height} x {width} pixels nothing is left after patches of "
                f"{self.patch} and {len(self.depths) - 1} halvings",
                f"give images of at least {smallest} pixels, a smaller patch or fewer stages",
            )
        norm = functools.partial(nn.LayerNorm, dtype=self.compute.dtype)
        x = image.astype(self.compute.dtype)
        for stage, (depth, channels) in enumerate(zip(self.depths, self.widths, strict=True)):
            side, name = (self.patch, "stem") if stage == 0 else (2, f"stage{stage}_down")
            x = x if stage == 0 else norm(name=f"{name}_norm")(x)
            x = nn.Conv(
                channels,
                (side, side),
                strides=side,
                padding="VALID",
                dtype=self.compute.dtype,
                kernel_init=_INIT,
                name=name,
            )(x)
            x = norm(name="stem_norm")(x) if stage == 0 else x
            for i in range(depth):
                block = ConvNeXtBlock(
                    self.layer_scale, compute=self.compute, name=f"stage{stage}_block{i}"
                )
                x = block(x)
        return norm(name="norm")(x.mean(axis=(1, 2))).astype(jnp.float32)


def convnext(
    *,
    depths: Sequence[int] = (3, 3, 9, 3),
    widths: Sequence[int] = (96, 192, 384, 768),
    patch: int = 4,
    layer_scale: float | None = 1e-6,
    compute: Compute = Compute(),
) -> ConvNeXt:
    """A ConvNeXt; ConvNeXt-T by default.

    The smaller ones that are published as `atto`, `femto`, `pico` and `nano` have depths of 2, 2, 6 and 2
    and widths of 40, 48 or 64 and its double, fourfold and eightfold; `nano` has 2, 2, 8 and 2, and 80.

    Args:
      depths: blocks of each stage.
      widths: channels of each stage.
      patch: side of the stem's patches, 4 as published; 1 or 2 for small images.
      layer_scale: what the scale of each channel begins with; None for no scale.
      compute: see `Compute`.

    Raises:
      BadInput: a number is not positive, or there is not one width for each depth.
    """
    require_positive("encoder.depths", *depths)
    require_positive("encoder.widths", *widths)
    require_positive("encoder.patch", patch)
    if len(depths) != len(widths):
        raise BadInput(
            "encoder.depths, encoder.widths",
            f"{len(depths)} depths and {len(widths)} widths",
            "give one of each for a stage",
        )
    return ConvNeXt(tuple(depths), tuple(widths), patch, layer_scale, compute=compute)
