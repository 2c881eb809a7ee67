"""Residual networks: the family of the CIFAR distillation tables, ResNet-18, ResNet-34 and ResNet-50.

Channels-last, post-activation, projection shortcuts (1x1 convolution and BatchNorm). Which block has
a projection or a squeeze-and-excitation is stated, never found by comparing widths, so that a shrunk
network keeps its structure.
"""

import functools
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from kdjax.models.blocks import Compute, ConvNorm, require_positive
from kdjax.models.inverted_residual import Squeeze, SqueezeExcitation
from kdjax.types import BadInput

Hidden = Callable[[int], int]
"""Units of the hidden layer of a squeeze-and-excitation, from the channels that it scales."""


def _excited(y: Array, hidden: Hidden | None, channels: int, compute: Compute) -> Array:
    """With a squeeze-and-excitation behind it, if any."""
    if hidden is None:
        return y
    squeeze = Squeeze(width=hidden(channels), activation=nn.relu, gate=nn.sigmoid)
    return SqueezeExcitation(squeeze, compute, name="excite")(y)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut.

    Attributes:
      width: channels of both convolutions.
      stride: of the first.
      project: the shortcut is a 1x1 convolution.
      compute: see `Compute`.
      hidden: of the squeeze-and-excitation before the sum, None where there is none.
      rectified: there is a ReLU between the second convolution and the squeeze-and-excitation.

    Reference: He et al. 2015, https://arxiv.org/abs/1512.03385, fig. 2.
    """

    width: int
    stride: int
    project: bool
    compute: Compute
    hidden: Hidden | None = None
    rectified: bool = False

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channel"], *, train: bool
    ) -> Float[Array, "batch out_height out_width channels"]:
        """ReLU of the sum of the two branches."""
        y = ConvNorm(self.width, stride=self.stride, compute=self.compute, name="first")(
            x, train=train
        )
        y = ConvNorm(self.width, compute=self.compute, name="second")(nn.relu(y), train=train)
        y = _excited(nn.relu(y) if self.rectified else y, self.hidden, self.width, self.compute)
        if self.project:
            x = ConvNorm(
                self.width, kernel_size=1, stride=self.stride, compute=self.compute, name="shortcut"
            )(x, train=train)
        return nn.relu(x + y)


class Bottleneck(nn.Module):
    """A 1x1, a 3x3 and a 1x1 convolution, the last to four times `width`, and a shortcut.

    The stride is that of the 3x3 convolution, as in torchvision ("v1.5"); the paper strides the
    first 1x1, which skips three of four pixels.

    Attributes:
      width: channels of the first two convolutions.
      stride: of the second.
      project: the shortcut is a 1x1 convolution.
      compute: see `Compute`.
      hidden: of the squeeze-and-excitation before the sum, None where there is none.
      stride_first: the stride is that of the first convolution, as in the paper.

    Reference: He et al. 2015, https://arxiv.org/abs/1512.03385, fig. 5.
    """

    width: int
    stride: int
    project: bool
    compute: Compute
    hidden: Hidden | None = None
    stride_first: bool = False

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channel"], *, train: bool
    ) -> Float[Array, "batch out_height out_width channels"]:
        """ReLU of the sum of the two branches."""
        conv = functools.partial(ConvNorm, compute=self.compute)
        first, second = (self.stride, 1) if self.stride_first else (1, self.stride)
        y = conv(self.width, kernel_size=1, stride=first, name="first")(x, train=train)
        y = conv(self.width, stride=second, name="second")(nn.relu(y), train=train)
        y = conv(4 * self.width, kernel_size=1, name="third")(nn.relu(y), train=train)
        y = _excited(y, self.hidden, 4 * self.width, self.compute)
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
      block: makes a block, such as `BasicBlock` or `Bottleneck`.
      imagenet_stem: 7x7 with stride 2 and 3x3 max-pooling with stride 2, instead of 3x3 with stride
        1 and no pooling.
      compute: see `Compute`.
      pool_padding: pixels before and behind the image in the pooling of `imagenet_stem`.
    """

    blocks: Sequence[int]
    widths: Sequence[int]
    project_first: bool = False
    block: Callable[..., nn.Module] = BasicBlock
    imagenet_stem: bool = False
    compute: Compute = Compute()
    pool_padding: tuple[int, int] = (1, 1)

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
            x = nn.pool(x, -jnp.inf, lax.max, (3, 3), (2, 2), (self.pool_padding,) * 2)
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
    return _of_basic_blocks((2, 2, 2, 2), width, imagenet_stem, compute)


def resnet34(
    *, width: int = 64, imagenet_stem: bool = False, compute: Compute = Compute()
) -> ResNet:
    """ResNet-34, as `resnet18` with 3, 4, 6 and 3 blocks.

    Raises:
      BadInput: the width is not positive.

    Reference: He et al. 2015, https://arxiv.org/abs/1512.03385, table 1.
    """
    return _of_basic_blocks((3, 4, 6, 3), width, imagenet_stem, compute)


def _of_basic_blocks(
    blocks: tuple[int, ...], width: int, imagenet_stem: bool, compute: Compute
) -> ResNet:
    require_positive("encoder.width", width)
    return ResNet(
        blocks=blocks,
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
