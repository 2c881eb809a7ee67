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
    """ResNet-18 with a CIFAR stem."""

    name: Literal["resnet18"]
    width: int = 64


Encoder = CNN | CifarResNet | ResNet18
