"""Networks of inverted residual blocks."""

import dataclasses
from typing import Literal

from kdjax import models
from kdjax.config.encoders import Encoder, Multiplier, but
from kdjax.models import Compute


@dataclasses.dataclass(frozen=True, kw_only=True)
class MobileNetV2(Encoder):
    """MobileNetV2.

    Attributes:
      multiplier: of the widths, which are rounded to multiples of 8.
      imagenet_stem: has stride 2, as published; otherwise 1, for small images.
    """

    name: Literal["mobilenet_v2"]
    multiplier: Multiplier = 1.0
    imagenet_stem: bool = False

    @property
    def title(self) -> str:
        """What the report calls it."""
        name = self.name.replace("_", "-") + but("-x", self.multiplier, 1)
        return name + ("-imagenet" if self.imagenet_stem else "")

    def module(self, compute: Compute) -> models.MobileNet:
        """See `kdjax.models.mobilenet_v2`."""
        return models.mobilenet_v2(
            multiplier=self.multiplier, imagenet_stem=self.imagenet_stem, compute=compute
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class MobileNetV3(Encoder):
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

    @property
    def title(self) -> str:
        """What the report calls it."""
        name = f"mobilenet-v3-{self.size}" + but("-x", self.multiplier, 1)
        name += "" if self.activation == "hard_swish" else f"-{self.activation}"
        return name + ("-imagenet" if self.imagenet_stem else "")

    def module(self, compute: Compute) -> models.MobileNet:
        """See `kdjax.models.mobilenet_v3_small` and `kdjax.models.mobilenet_v3_large`."""
        make = models.mobilenet_v3_small if self.size == "small" else models.mobilenet_v3_large
        return make(
            multiplier=self.multiplier,
            activation=self.activation,
            imagenet_stem=self.imagenet_stem,
            compute=compute,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class EfficientNetB0(Encoder):
    """EfficientNet-B0, without stochastic depth.

    Attributes:
      multiplier: of the widths, which are rounded to multiples of 8.
      imagenet_stem: has stride 2, as published; otherwise 1, for small images.
    """

    name: Literal["efficientnet_b0"]
    multiplier: Multiplier = 1.0
    imagenet_stem: bool = False

    @property
    def title(self) -> str:
        """What the report calls it."""
        name = self.name.replace("_", "-") + but("-x", self.multiplier, 1)
        return name + ("-imagenet" if self.imagenet_stem else "")

    def module(self, compute: Compute) -> models.MobileNet:
        """See `kdjax.models.efficientnet_b0`."""
        return models.efficientnet_b0(
            multiplier=self.multiplier, imagenet_stem=self.imagenet_stem, compute=compute
        )
