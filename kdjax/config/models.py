"""Architectures."""

import dataclasses
from collections.abc import Iterator
from typing import Annotated, Literal

from kdjax.config.data import Size
from kdjax.config.fields import Depth, Width
from kdjax.ranges import AtLeast, In, Multiple

Multiplier = Annotated[float, In("(0, 100]")]


@dataclasses.dataclass(frozen=True, kw_only=True)
class CNN:
    """A plain stack of 3x3 convolutions of these widths."""

    name: Literal["cnn"]
    widths: Annotated[tuple[Width, ...], AtLeast(1)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class CifarResNet:
    """`resnet{depth}x{multiplier}` of the CIFAR distillation tables."""

    name: Literal["cifar_resnet"]
    depth: Annotated[int, In("[8, 2^10]"), Multiple(6, plus=2)]
    multiplier: Annotated[int, In("[1, 100]")] = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class ResNet18:
    """ResNet-18.

    Attributes:
      width: channels of the stem; the stages have 1, 2, 4 and 8 times as many.
      imagenet_stem: 7x7 with stride 2 and a max-pooling; otherwise 3x3 with stride 1.
    """

    name: Literal["resnet18"]
    width: Width = 64
    imagenet_stem: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class ResNet50:
    """ResNet-50.

    Attributes:
      width: channels of the stem; the stages have 4, 8, 16 and 32 times as many.
      imagenet_stem: 7x7 with stride 2 and a max-pooling; otherwise 3x3 with stride 1.
    """

    name: Literal["resnet50"]
    width: Width = 64
    imagenet_stem: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class VGG:
    """VGG with BatchNorm, and the mean over space for its hidden linear layers.

    Attributes:
      depth: layers with weights.
      width: channels of the first stage; the others have 2, 4, 8 and 8 times as many.
      pools: stages that end in max-pooling: 3 for images of 32 pixels, 4 for 64.
    """

    name: Literal["vgg"]
    depth: Literal[8, 11, 13, 16, 19]
    width: Width = 64
    pools: Annotated[int, In("[0, 4]")] = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class MobileNetV2:
    """MobileNetV2.

    Attributes:
      multiplier: of the widths, which are rounded to multiples of 8.
      imagenet_stem: has stride 2, as published; otherwise 1, for small images.
    """

    name: Literal["mobilenet_v2"]
    multiplier: Multiplier = 1.0
    imagenet_stem: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class MobileNetV3:
    """MobileNetV3, with the dense layer that comes before the classifier.

    Attributes:
      size: of the two networks of the paper.
      multiplier: of the widths, which are rounded to multiples of 8.
      activation: in the place of hard swish, which is two operators more in int8, `relu`.
      imagenet_stem: has stride 2, as published; otherwise 1, for small images.
    """

    name: Literal["mobilenet_v3"]
    size: Literal["small", "large"]
    multiplier: Multiplier = 1.0
    activation: Literal["hard_swish", "relu"] = "hard_swish"
    imagenet_stem: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class EfficientNetB0:
    """EfficientNet-B0, without stochastic depth.

    Attributes:
      multiplier: of the widths, which are rounded to multiples of 8.
      imagenet_stem: has stride 2, as published; otherwise 1, for small images.
    """

    name: Literal["efficientnet_b0"]
    multiplier: Multiplier = 1.0
    imagenet_stem: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class ViT:
    """A vision transformer whose features are the mean over its tokens; ViT-Ti by default.

    Attributes:
      width: of a token.
      depth: blocks.
      heads: of each attention; divides `width`.
      mlp: hidden units of each block.
      patch: side in pixels; divides the size of the views.
    """

    name: Literal["vit"]
    width: Width = 192
    depth: Depth = 12
    heads: Width = 3
    mlp: Width = 768
    patch: Size = 4

    def faults(self) -> Iterator[tuple[str, str]]:
        """Fields that do not go together."""
        if self.width % self.heads:
            yield (
                "heads, width",
                f"{self.heads} do not divide the width of {self.width}; take a divisor",
            )


Encoder = (
    CNN | CifarResNet | ResNet18 | ResNet50 | VGG | MobileNetV2 | MobileNetV3 | EfficientNetB0 | ViT
)
