"""Architectures."""

import dataclasses
from typing import Literal


@dataclasses.dataclass(frozen=True, kw_only=True)
class CNN:
    """A plain stack of 3x3 convolutions of these widths."""

    name: Literal["cnn"]
    widths: tuple[int, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class CifarResNet:
    """`resnet{depth}x{multiplier}` of the CIFAR distillation tables."""

    name: Literal["cifar_resnet"]
    depth: int
    multiplier: int = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class ResNet18:
    """ResNet-18.

    Attributes:
      width: channels of the stem; the stages have 1, 2, 4 and 8 times as many.
      imagenet_stem: 7x7 with stride 2 and a max-pooling; otherwise 3x3 with stride 1.
    """

    name: Literal["resnet18"]
    width: int = 64
    imagenet_stem: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class ResNet50:
    """ResNet-50.

    Attributes:
      width: channels of the stem; the stages have 4, 8, 16 and 32 times as many.
      imagenet_stem: 7x7 with stride 2 and a max-pooling; otherwise 3x3 with stride 1.
    """

    name: Literal["resnet50"]
    width: int = 64
    imagenet_stem: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class VGG:
    """VGG with BatchNorm, and the mean over space for its hidden linear layers.

    Attributes:
      depth: 8, 11, 13, 16 or 19.
      width: channels of the first stage; the others have 2, 4, 8 and 8 times as many.
      pools: stages that end in max-pooling: 3 for images of 32 pixels, 4 for 64.
    """

    name: Literal["vgg"]
    depth: int
    width: int = 64
    pools: int = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class MobileNetV2:
    """MobileNetV2.

    Attributes:
      multiplier: of the widths, which are rounded to multiples of 8.
      imagenet_stem: has stride 2, as published; otherwise 1, for small images.
    """

    name: Literal["mobilenet_v2"]
    multiplier: float = 1.0
    imagenet_stem: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class MobileNetV3:
    """MobileNetV3, with the dense layer that comes before the classifier.

    Attributes:
      size: of the two networks of the paper.
      multiplier: of the widths, which are rounded to multiples of 8.
      activation: in the place of hard swish, for which no runtime has an integer kernel, `relu`.
      imagenet_stem: has stride 2, as published; otherwise 1, for small images.
    """

    name: Literal["mobilenet_v3"]
    size: Literal["small", "large"]
    multiplier: float = 1.0
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
    multiplier: float = 1.0
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
    width: int = 192
    depth: int = 12
    heads: int = 3
    mlp: int = 768
    patch: int = 4


Encoder = (
    CNN | CifarResNet | ResNet18 | ResNet50 | VGG | MobileNetV2 | MobileNetV3 | EfficientNetB0 | ViT
)
