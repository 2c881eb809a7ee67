"""Residual networks: the family of the CIFAR distillation tables, ResNet-18 and ResNet-50.

Channels-last, post-activation, projection shortcuts (1x1 convolution and BatchNorm). Which block has
a projection is stated, never found by comparing widths, so that a shrunk network keeps its structure.
"""

import functools
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from kdjax.models.blocks import Compute, ConvNorm, require_positive
from kdjax.types import BadInput


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut.

    Reference: He et al. 2015, https://arxiv.org/abs/1512.03385, fig. 2.
    """

    width: int
    stride: int
    project: bool
    compute: Compute

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channel"], *, train: bool
    ) -> Float[Array, "batch out_height out_width channels"]:
        """ReLU of the sum of the two branches."""
        y = ConvNorm(self.width, stride=self.stride, compute=self.compute, name="first")(
            x, train=train
        )
        y = ConvNorm(self.width, compute=self.compute, name="second")(nn.relu(y), train=train)
        if self.project:
            x = ConvNorm(
                self.width, kernel_size=1, stride=self.stride, compute=self.compute, name="shortcut"
            )(x, train=train)
        return nn.relu(x + y)


class Bottleneck(nn.Module):
    """A 1x1, a 3x3 and a 1x1 convolution, the last to four times `width`, and a shortcut.

    The stride is that of the 3x3 convolution, as in torchvision ("v1.5"); the paper strides the
    first 1x1, which skips three of four pixels.

    Reference: He et al. 2015, https://arxiv.org/abs/1512.03385, fig. 5.
    """

    width: int
    stride: int
    project: bool
    compute: Compute

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channel"], *, train: bool
    ) -> Float[Array, "batch out_height out_width channels"]:
        """ReLU of the sum of the two branches."""
        conv = functools.partial(ConvNorm, compute=self.compute)
        y = conv(self.width, kernel_size=1, name="first")(x, train=train)
        y = conv(self.width, stride=self.stride, name="second")(nn.relu(y), train=train)
        y = conv(4 * self.width, kernel_size=1, name="third")(nn.relu(y), train=train)
        if self.project:
            shortcut = conv(4 * self.width, kernel_size=1, stride=self.stride, name="shortcut")
            x = shortcut(x, train=train)
        return nn.relu(x + y)


class ResNet(nn.Module):
    """A stem, stages of residual blocks, the mean over space.

    Attributes:
      blocks: blocks of each stage.
      widths: channels of the stem, then the `width` of each stage's blocks.
      project_first: the first block of the first stage has a projection shortcut; the first blocks
        of later stages, which halve the image, always have one.
      block: `BasicBlock` or `Bottleneck`.
      imagenet_stem: 7x7 with stride 2 and 3x3 max-pooling with stride 2, instead of 3x3 with stride
        1 and no pooling.
      compute: see `Compute`.
    """

    blocks: Sequence[int]
    widths: Sequence[int]
    project_first: bool = False
    block: Callable[..., nn.Module] = BasicBlock
    imagenet_stem: bool = False
    compute: Compute = Compute()

    @nn.compact
    def __call__(
        self, image: Float[Array, "batch height width channel"], *, train: bool
    ) -> Float[Array, "batch dim"]:
        """The features, float32, `dim = widths[-1]`, or `4 * widths[-1]` of `Bottleneck`s."""
        stem = ConvNorm(
            self.widths[0],
            kernel_size=7 if self.imagenet_stem else 3,
            stride=2 if self.imagenet_stem else 1,
            compute=self.compute,
            name="stem",
        )
        x = nn.relu(stem(image.astype(self.compute.dtype), train=train))
        if self.imagenet_stem:
            x = nn.pool(x, -jnp.inf, lax.max, (3, 3), (2, 2), ((1, 1), (1, 1)))
        for stage, (blocks, width) in enumerate(zip(self.blocks, self.widths[1:], strict=True)):
            for i in range(blocks):
                x = self.block(
                    width,
                    stride=2 if stage > 0 and i == 0 else 1,
                    project=i == 0 and (stage > 0 or self.project_first),
                    compute=self.compute,
                    name=f"stage{stage}_block{i}",
                )(x, train=train)
        return x.mean(axis=(1, 2)).astype(jnp.float32)


def cifar_resnet(depth: int, *, multiplier: int = 1, compute: Compute = Compute()) -> ResNet:
    """`resnet{depth}` or `resnet{depth}x{multiplier}` of the CIFAR distillation tables.

    Three stages of `(depth - 2) / 6` blocks. Plain ones have 16, 16, 32, 64 channels; with a
    multiplier the stem has 32 and the stages `multiplier * (16, 32, 64)`, as in
    https://github.com/HobbitLong/RepDistiller (so `resnet8x4` is 32, 64, 128, 256).

    Args:
      depth: 6n + 2: 8, 14, 20, 32, 44, 56, 110.
      multiplier: of the widths.
      compute: see `Compute`.

    Raises:
      BadInput: the depth is not of the form 6n + 2, or the multiplier is not positive.
    """
    require_positive("encoder.multiplier", multiplier)
    if depth < 8 or (depth - 2) % 6:
        raise BadInput(
            "encoder.depth", f"{depth} is not 6n + 2", "take 8, 14, 20, 32, 44, 56 or 110"
        )
    stem = 16 if multiplier == 1 else 32
    stages = tuple(multiplier * width for width in (16, 32, 64))
    return ResNet(
        blocks=((depth - 2) // 6,) * 3,
        widths=(stem, *stages),
        project_first=stem != stages[0],
        compute=compute,
    )


def resnet18(
    *, width: int = 64, imagenet_stem: bool = False, compute: Compute = Compute()
) -> ResNet:
    """ResNet-18 of `width`, 2, 4 and 8 times `width` channels.

    The stem is 3x3 with stride 1, as is used on CIFAR, or else that of `ResNet.imagenet_stem`.

    Raises:
      BadInput: the width is not positive.

    Reference: He et al. 2015, https://arxiv.org/abs/1512.03385, table 1.
    """
    require_positive("encoder.width", width)
    return ResNet(
        blocks=(2, 2, 2, 2),
        widths=(width, width, 2 * width, 4 * width, 8 * width),
        imagenet_stem=imagenet_stem,
        compute=compute,
    )


def resnet50(
    *, width: int = 64, imagenet_stem: bool = False, compute: Compute = Compute()
) -> ResNet:
    """ResNet-50 of `Bottleneck`s: 4, 8, 16 and 32 times `width` channels between the blocks.

    The stem is 3x3 with stride 1, as is used on CIFAR, or else that of `ResNet.imagenet_stem`.

    Raises:
      BadInput: the width is not positive.

    Reference: He et al. 2015, https://arxiv.org/abs/1512.03385, table 1.
    """
    require_positive("encoder.width", width)
    return ResNet(
        blocks=(3, 4, 6, 3),
        widths=(width, width, 2 * width, 4 * width, 8 * width),
        project_first=True,
        block=Bottleneck,
        imagenet_stem=imagenet_stem,
        compute=compute,
    )
