"""Residual networks."""

import dataclasses
from typing import Annotated, Literal

from kdjax import models
from kdjax.config.encoders import Encoder, but, imagenet
from kdjax.config.fields import Width
from kdjax.models import Compute
from kdjax.ranges import In, Multiple


@dataclasses.dataclass(frozen=True, kw_only=True)
class CifarResNet(Encoder):
    """`resnet{depth}x{multiplier}` of the CIFAR distillation tables."""

    name: Literal["cifar_resnet"]
    depth: Annotated[int, In("[8, 2^10]"), Multiple(6, plus=2)]
    multiplier: Annotated[int, In("[1, 100]")] = 1

    @property
    def title(self) -> str:
        """What the report calls it."""
        return f"resnet{self.depth}" + but("x", self.multiplier, 1)

    def module(self, compute: Compute) -> models.ResNet:
        """See `kdjax.models.cifar_resnet`."""
        return models.cifar_resnet(depth=self.depth, multiplier=self.multiplier, compute=compute)


class _ForImageNet(Encoder):
    """A network that was published for ImageNet."""

    width: int
    imagenet_stem: bool

    @property
    def title(self) -> str:
        """What the report calls it."""
        return self.name + but("-w", self.width, 64) + imagenet(self.imagenet_stem)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ResNet18(_ForImageNet):
    """ResNet-18.

    Attributes:
      width: channels of the stem; the stages have 1, 2, 4 and 8 times as many.
      imagenet_stem: 7x7 with stride 2 and a max-pooling; otherwise 3x3 with stride 1.
    """

    name: Literal["resnet18"]
    width: Width = 64
    imagenet_stem: bool = False

    def module(self, compute: Compute) -> models.ResNet:
        """See `kdjax.models.resnet18`."""
        return models.resnet18(width=self.width, imagenet_stem=self.imagenet_stem, compute=compute)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ResNet34(_ForImageNet):
    """ResNet-34.

    Attributes:
      width: channels of the stem; the stages have 1, 2, 4 and 8 times as many.
      imagenet_stem: 7x7 with stride 2 and a max-pooling; otherwise 3x3 with stride 1.
    """

    name: Literal["resnet34"]
    width: Width = 64
    imagenet_stem: bool = False

    def module(self, compute: Compute) -> models.ResNet:
        """See `kdjax.models.resnet34`."""
        return models.resnet34(width=self.width, imagenet_stem=self.imagenet_stem, compute=compute)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ResNet50(_ForImageNet):
    """ResNet-50.

    Attributes:
      width: channels of the stem; the stages have 4, 8, 16 and 32 times as many.
      imagenet_stem: 7x7 with stride 2 and a max-pooling; otherwise 3x3 with stride 1.
    """

    name: Literal["resnet50"]
    width: Width = 64
    imagenet_stem: bool = False

    def module(self, compute: Compute) -> models.ResNet:
        """See `kdjax.models.resnet50`."""
        return models.resnet50(width=self.width, imagenet_stem=self.imagenet_stem, compute=compute)
