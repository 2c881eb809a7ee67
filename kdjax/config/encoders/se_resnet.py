"""Residual networks with squeeze-and-excitations."""

import dataclasses
from typing import Literal

from kdjax import models
from kdjax.config.encoders import Encoder, but, imagenet
from kdjax.config.fields import Width
from kdjax.models import Compute


@dataclasses.dataclass(frozen=True, kw_only=True)
class SEResNet(Encoder):
    """SE-ResNet-18, -34 or -50.

    Attributes:
      depth: of the ResNet.
      width: channels of the stem; the stages have 1, 2, 4 and 8 times as many, or 4, 8, 16 and 32 times
        where the depth is 50.
      imagenet_stem: 7x7 with stride 2 and a max-pooling; otherwise 3x3 with stride 1.
      caffe: as the authors' code has it, and timm's `legacy_seresnet`; otherwise as timm's `seresnet`.
    """

    name: Literal["se_resnet"]
    depth: Literal[18, 34, 50]
    width: Width = 64
    imagenet_stem: bool = False
    caffe: bool = False

    @property
    def title(self) -> str:
        """What the report calls it."""
        caffe = "-caffe" if self.caffe else ""
        return (
            f"se-resnet{self.depth}"
            + but("-w", self.width, 64)
            + imagenet(self.imagenet_stem)
            + caffe
        )

    def module(self, compute: Compute) -> models.ResNet:
        """See `kdjax.models.se_resnet`."""
        return models.se_resnet(
            self.depth,
            width=self.width,
            imagenet_stem=self.imagenet_stem,
            caffe=self.caffe,
            compute=compute,
        )
