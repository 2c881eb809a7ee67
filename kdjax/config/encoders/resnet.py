"""Residual networks."""

import dataclasses
from collections.abc import Callable
from typing import Annotated, ClassVar, Literal

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


@dataclasses.dataclass(frozen=True, kw_only=True)
class ForImageNet(Encoder):
    """A network that was published for ImageNet.

    Attributes:
      width: channels of the stem; the stages have 1, 2, 4 and 8 times as many, or 4, 8, 16 and 32 times
        where there are 50 layers.
      imagenet_stem: 7x7 with stride 2 and a max-pooling; otherwise 3x3 with stride 1.
    """

    width: Width = 64
    imagenet_stem: bool = False
    made: ClassVar[Callable[..., models.ResNet]]

    @property
    def title(self) -> str:
        """What the report calls it."""
        return self.name + but("-w", self.width, 64) + imagenet(self.imagenet_stem)

    def module(self, compute: Compute) -> models.ResNet:
        """See `kdjax.models.resnet18`, `resnet34` and `resnet50`."""
        return type(self).made(width=self.width, imagenet_stem=self.imagenet_stem, compute=compute)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ResNet18(ForImageNet):
    """ResNet-18."""

    made = staticmethod(models.resnet18)
    name: Literal["resnet18"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ResNet34(ForImageNet):
    """ResNet-34."""

    made = staticmethod(models.resnet34)
    name: Literal["resnet34"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ResNet50(ForImageNet):
    """ResNet-50."""

    made = staticmethod(models.resnet50)
    name: Literal["resnet50"]
