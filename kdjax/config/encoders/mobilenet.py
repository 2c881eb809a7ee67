"""Networks of inverted residual blocks."""

import dataclasses
from typing import Literal

from kdjax import models
from kdjax.config.encoders import Encoder, Multiplier, but, imagenet
from kdjax.models import Compute


class _Inverted(Encoder):
    """A network of inverted residual blocks."""

    multiplier: float
    imagenet_stem: bool

    @property
    def variant(self) -> str:
        """Which of its networks it is, for the title."""
        return but("-x", self.multiplier, 1)

    @property
    def title(self) -> str:
        """What the report calls it."""
        return self.name.replace("_", "-") + self.variant + imagenet(self.imagenet_stem)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MobileNetV2(_Inverted):
    """MobileNetV2.

    Attributes:
      multiplier: of the widths, which are rounded to multiples of 8.
      imagenet_stem: has stride 2, as published; otherwise 1, for small images.
    """

    name: Literal["mobilenet_v2"]
    multiplier: Multiplier = 1.0
    imagenet_stem: bool = False

    def module(self, compute: Compute) -> models.MobileNet:
        """See `kdjax.models.mobilenet_v2`."""
        return models.mobilenet_v2(
            multiplier=self.multiplier, imagenet_stem=self.imagenet_stem, compute=compute
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class MobileNetV3(_Inverted):
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
    def variant(self) -> str:
        """The size, and the activation where it is another one."""
        activation = "" if self.activation == "hard_swish" else f"-{self.activation}"
        return f"-{self.size}" + but("-x", self.multiplier, 1) + activation

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
class EfficientNetB0(_Inverted):
    """EfficientNet-B0, without stochastic depth.

    Attributes:
      multiplier: of the widths, which are rounded to multiples of 8.
      imagenet_stem: has stride 2, as published; otherwise 1, for small images.
    """

    name: Literal["efficientnet_b0"]
    multiplier: Multiplier = 1.0
    imagenet_stem: bool = False

    def module(self, compute: Compute) -> models.MobileNet:
        """See `kdjax.models.efficientnet_b0`."""
        return models.efficientnet_b0(
            multiplier=self.multiplier, imagenet_stem=self.imagenet_stem, compute=compute
        )
