"""Wide residual networks, whose blocks normalise and rectify before their convolutions."""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from kdjax.models.blocks import Compute, ConvNorm, batch_norm, require_positive
from kdjax.types import BadInput


def _conv(
    features: int,
    kernel_size: int,
    *,
    compute: Compute,
    name: str,
    stride: int = 1,
    use_bias: bool = False,
) -> nn.Conv:
    """A convolution that no BatchNorm follows, or not always; drawn as those of `ConvNorm` are."""
    return nn.Conv(
        features,
        (kernel_size, kernel_size),
        strides=stride,
        padding=kernel_size // 2,
        use_bias=use_bias,
        dtype=compute.dtype,
        kernel_init=nn.initializers.variance_scaling(2.0, "fan_out", "normal"),
        name=name,
    )


def _frozen_norm(compute: Compute, *, train: bool) -> nn.BatchNorm:
    """A BatchNorm that no layer can take up: in a folded network its statistics stay what they are."""
    return batch_norm(compute, train=train and not compute.folded, name="norm")


class PreactivatedBlock(nn.Module):
    """BatchNorm and ReLU before each of two 3x3 convolutions, and a shortcut around them.

    A shortcut that projects has what the first ReLU gives, another one has the block's own input.

    Attributes:
      width: channels of both convolutions.
      stride: of the first.
      project: the shortcut is a 1x1 convolution without a BatchNorm.
      after_conv: what the block is given is a convolution's result that nothing else reads, which its
        first BatchNorm can be folded into.
      compute: see `Compute`.

    Reference: Zagoruyko and Komodakis 2016, https://arxiv.org/abs/1605.07146, fig. 1c.
    """

    width: int
    stride: int
    project: bool
    after_conv: bool
    compute: Compute

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channel"], *, train: bool
    ) -> Float[Array, "batch out_height out_width channels"]:
        """The sum of the two branches, as it is."""
        y = x
        if not (self.compute.folded and self.after_conv):
            y = _frozen_norm(self.compute, train=train)(y)
        y = nn.relu(y)
        if self.project:
            shortcut = _conv(
                self.width, 1, stride=self.stride, compute=self.compute, name="shortcut"
            )
            x = shortcut(y)
        first = ConvNorm(self.width, stride=self.stride, compute=self.compute, name="first")
        y = nn.relu(first(y, train=train))
        return x + _conv(self.width, 3, compute=self.compute, name="second")(y)


class WideResNet(nn.Module):
    """A 3x3 convolution, stages of pre-activated blocks, BatchNorm and ReLU, the mean over space.

    Attributes:
      blocks: blocks of each stage.
      widths: channels of the first convolution, then of each stage.
      project_first: the first block of the first stage has a shortcut that projects; the first blocks of
        later stages, which halve the image, always have one.
      compute: see `Compute`.

    Reference: Zagoruyko and Komodakis 2016, https://arxiv.org/abs/1605.07146, table 1.
    """

    blocks: Sequence[int]
    widths: Sequence[int]
    project_first: bool = True
    compute: Compute = Compute()

    @nn.compact
    def __call__(
        self, image: Float[Array, "batch height width channel"], *, train: bool
    ) -> Float[Array, "batch dim"]:
        """The features, float32, `dim = widths[-1]`."""
        compute = self.compute
        stem = _conv(
            self.widths[0],
            3,
            use_bias=compute.folded and self.project_first,
            compute=compute,
            name="stem",
        )
        x = stem(image.astype(compute.dtype))
        for stage, (blocks, width) in enumerate(zip(self.blocks, self.widths[1:], strict=True)):
            for i in range(blocks):
                project = i == 0 and (stage > 0 or self.project_first)
                x = PreactivatedBlock(
                    width,
                    stride=2 if stage > 0 and i == 0 else 1,
                    project=project,
                    after_conv=stage == 0 and i == 0 and project,
                    compute=compute,
                    name=f"stage{stage}_block{i}",
                )(x, train=train)
        x = nn.relu(_frozen_norm(compute, train=train)(x))
        return x.mean(axis=(1, 2)).astype(jnp.float32)


def wide_resnet(depth: int, *, widen: int = 1, compute: Compute = Compute()) -> WideResNet:
    """`WRN-{depth}-{widen}`: three stages of `(depth - 4) / 6` blocks, `widen * (16, 32, 64)` channels.

    Without dropout. The network of https://github.com/HobbitLong/RepDistiller.

    Args:
      depth: 6n + 4: 10, 16, 22, 28, 40.
      widen: the factor of the widths, k in the paper.
      compute: see `Compute`.

    Raises:
      BadInput: the depth is not of the form 6n + 4, or the factor is not positive.

    Reference: Zagoruyko and Komodakis 2016, https://arxiv.org/abs/1605.07146, table 1.
    """
    require_positive("encoder.widen", widen)
    if depth < 10 or (depth - 4) % 6:
        raise BadInput("encoder.depth", f"{depth} is not 6n + 4", "take 10, 16, 22, 28 or 40")
    stages = tuple(widen * width for width in (16, 32, 64))
    return WideResNet(
        blocks=((depth - 4) // 6,) * 3,
        widths=(16, *stages),
        project_first=widen > 1,
        compute=compute,
    )
