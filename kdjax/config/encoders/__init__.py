"""Architectures: a file a family, each class the fields of a config and the module that they make."""

import abc
import dataclasses
from typing import Annotated

import flax.linen as nn

from kdjax.choice import Choice, import_all
from kdjax.config.fields import Text, aside
from kdjax.config.imported import Imported
from kdjax.models import Compute
from kdjax.ranges import In

Multiplier = Annotated[float, In("(0, 100]")]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Encoder(Choice, abc.ABC):
    """What turns an image into features.

    Attributes:
      weights: published ones that it begins with: where they are, or the fields of `Imported`. No part of
        what the network is; their content is part of the fingerprint of the stage that begins with them.
    """

    weights: Text | Imported | None = aside(None)

    @property
    def imported(self) -> Imported | None:
        """The weights that it begins with."""
        return Imported(source=self.weights) if isinstance(self.weights, str) else self.weights

    @property
    def weights_field(self) -> dict[str, str]:
        """Where its weights are said to be, for messages; see `kdjax.types.under`."""
        return {"weights": "weights.source"} if isinstance(self.weights, Imported) else {}

    @property
    def architecture(self) -> "Encoder":
        """What the network is, whatever it begins with."""
        return dataclasses.replace(self, weights=None)

    @property
    @abc.abstractmethod
    def title(self) -> str:
        """What the report calls it: what is not as usual is said."""

    @abc.abstractmethod
    def module(self, compute: Compute) -> nn.Module:
        """The module; its features are [batch, dim], float32.

        Raises:
          BadInput: there is no such network; the line names the field of the encoder.
        """


def but(mark: str, value: float | int, usual: float | int) -> str:
    """A part of a title: the value behind its mark, nothing where it is the usual one."""
    return "" if value == usual else f"{mark}{value:g}"


def imagenet(stem: bool) -> str:
    """A part of a title: the stem is the one published for ImageNet."""
    return "-imagenet" if stem else ""


import_all(__name__, __path__)
