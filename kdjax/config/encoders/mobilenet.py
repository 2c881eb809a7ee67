"""Networks of inverted residual blocks."""

import dataclasses
from typing import Literal

from kdjax import models
from kdjax.config.encoders import Encoder, Multiplier, but, imagenet
from kdjax.config.fields import Decay, Positive
from kdjax.models import Compute, Convention


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inverted(Encoder):
    """A network of inverted residual blocks.

    Weights that come from TensorFlow, as all published EfficientNet-Lites do and the others at some
    places, need an epsilon of 0.001 and the padding `same`.

    Attributes:
      multiplier: of the widths, which are rounded to multiples of 8.
      imagenet_stem: has stride 2, as published; otherwise 1, for small images.
      epsilon: that each BatchNorm adds to the variance.
      momentum: part of the running statistics that a step keeps.
      padding: of convolutions with a stride: as PyTorch has it, or as TensorFlow has it.
    """

    multiplier: Multiplier = 1.0
    imagenet_stem: bool = False
    epsilon: Positive = 1e-5
    momentum: Decay = 0.9
    padding: Literal["symmetric", "same"] = "symmetric"

    @property
    def variant(self) -> str:
        """Which of its networks it is, for the title."""
        return but("-x", self.multiplier, 1)

    @property
    def title(self) -> str:
        """What the report calls it."""
        convention = but("-eps", self.epsilon, 1e-5) + but("-mom", self.momentum, 0.9)
        same = "-same" if self.padding == "same" else ""
        name = self.name.replace("_", "-")
        return name + self.variant + imagenet(self.imagenet_stem) + convention + same

    @property
    def convention(self) -> Convention:
        """Its padding and its BatchNorms."""
        return Convention(epsilon=self.epsilon, momentum=self.momentum, padding=self.padding)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MobileNetV2(Inverted):
    """MobileNetV2."""

    name: Literal["mobilenet_v2"]

    def module(self, compute: Compute) -> models.MobileNet:
        """See `kdjax.models.mobilenet_v2`."""
        return models.mobilenet_v2(
            multiplier=self.multiplier,
            imagenet_stem=self.imagenet_stem,
            convention=self.convention,
            compute=compute,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class MobileNetV3(Inverted):
    """MobileNetV3, with the dense layer that comes before the classifier.

    Attributes:
      size: of the two networks of the paper.
      activation: in the place of hard swish, which is two operators more in int8, `relu`.
    """

    name: Literal["mobilenet_v3"]
    size: Literal["small", "large"]
    activation: Literal["hard_swish", "relu"] = "hard_swish"

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
            convention=self.convention,
            compute=compute,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class EfficientNetB0(Inverted):
    """EfficientNet-B0, without stochastic depth."""

    name: Literal["efficientnet_b0"]

    def module(self, compute: Compute) -> models.MobileNet:
        """See `kdjax.models.efficientnet_b0`."""
        return models.efficientnet_b0(
            multiplier=self.multiplier,
            imagenet_stem=self.imagenet_stem,
            convention=self.convention,
            compute=compute,
        )


class _Lite(Inverted):
    """An EfficientNet-Lite."""

    def module(self, compute: Compute) -> models.MobileNet:
        """See `kdjax.models.efficientnet_lite`."""
        return models.efficientnet_lite(
            int(self.name[-1]),
            multiplier=self.multiplier,
            imagenet_stem=self.imagenet_stem,
            convention=self.convention,
            compute=compute,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class EfficientNetLite0(_Lite):
    """EfficientNet-Lite0: ReLU6, no squeeze-and-excitation."""

    name: Literal["efficientnet_lite0"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class EfficientNetLite1(_Lite):
    """EfficientNet-Lite1: more blocks than EfficientNet-Lite0."""

    name: Literal["efficientnet_lite1"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class EfficientNetLite2(_Lite):
    """EfficientNet-Lite2: more and wider blocks than EfficientNet-Lite0."""

    name: Literal["efficientnet_lite2"]
