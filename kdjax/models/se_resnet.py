"""Residual networks with a squeeze-and-excitation in every block."""

import dataclasses
import functools
from typing import Literal

from kdjax.models.blocks import Compute
from kdjax.models.inverted_residual import rounded
from kdjax.models.resnet import BasicBlock, Bottleneck, ResNet, resnet18, resnet34, resnet50

SEDepth = Literal[18, 34, 50]


def _in_eights(channels: int) -> int:
    return rounded(channels / 16)


def _exact(channels: int) -> int:
    return max(1, channels // 16)


CAFFE_PADDING = (0, 1)
"""Of the pooling behind the stem, before and behind the image."""

_PLAIN = {18: resnet18, 34: resnet34, 50: resnet50}
_BLOCKS = {
    BasicBlock: functools.partial(BasicBlock, hidden=_in_eights),
    Bottleneck: functools.partial(Bottleneck, hidden=_in_eights),
}
_CAFFE = {
    BasicBlock: functools.partial(BasicBlock, hidden=_exact, rectified=True),
    Bottleneck: functools.partial(Bottleneck, hidden=_exact, stride_first=True),
}


def se_resnet(
    depth: SEDepth,
    *,
    width: int = 64,
    imagenet_stem: bool = False,
    caffe: bool = False,
    compute: Compute = Compute(),
) -> ResNet:
    """SE-ResNet-18, -34 or -50: a ResNet whose blocks scale their channels before the sum.

    As timm's `seresnet18`, `seresnet34` and `seresnet50` are: a squeeze has a sixteenth of the channels
    that it scales, rounded to multiples of 8, and all else is as in `kdjax.models.resnet`.

    Args:
      depth: of the ResNet.
      width: of it: channels of its stem.
      imagenet_stem: of it.
      caffe: as the authors' Caffe code has it, and timm's `legacy_seresnet18`, `34` and `50`: a squeeze
        has just a sixteenth of the channels; a bottleneck strides in its first convolution, and a basic
        block has a ReLU before its squeeze; the pooling of the stem is padded behind alone.
      compute: see `Compute`.

    Raises:
      BadInput: the width is not positive.

    Reference: Hu et al. 2017, https://arxiv.org/abs/1709.01507, fig. 3 and table 1.
    """
    plain = _PLAIN[depth](width=width, imagenet_stem=imagenet_stem, compute=compute)
    blocks: dict = _CAFFE if caffe else _BLOCKS
    padding = CAFFE_PADDING if caffe else plain.pool_padding
    return dataclasses.replace(plain, block=blocks[plain.block], pool_padding=padding)
