"""The plain network of tutorials on knowledge distillation."""

import dataclasses
from typing import Annotated, Literal

from kdjax import models
from kdjax.config.encoders import Encoder
from kdjax.config.fields import Width
from kdjax.models import Compute
from kdjax.ranges import AtLeast


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlainCNN(Encoder):
    """3x3 convolutions, each with ReLU and 2x2 max-pooling, and a dense layer of all that is left.

    Attributes:
      widths: channels of each convolution; tutorials have 64 and 128, or 32 and 64 in the student.
      hidden: units of the dense layer; tutorials have 1000, or 500 in the student.
    """

    name: Literal["plain_cnn"]
    widths: Annotated[tuple[Width, ...], AtLeast(1)] = (64, 128)
    hidden: Width = 1000

    @property
    def title(self) -> str:
        """What the report calls it."""
        return "-".join(map(str, ("plain-cnn", *self.widths, self.hidden)))

    def module(self, compute: Compute) -> models.PlainCNN:
        """See `kdjax.models.PlainCNN`."""
        return models.PlainCNN(self.widths, hidden=self.hidden, compute=compute)
