"""A plain stack of convolutions."""

import dataclasses
from typing import Annotated, Literal

from kdjax import models
from kdjax.config.encoders import Encoder
from kdjax.config.fields import Width
from kdjax.models import Compute
from kdjax.ranges import AtLeast


@dataclasses.dataclass(frozen=True, kw_only=True)
class CNN(Encoder):
    """A plain stack of 3x3 convolutions of these widths."""

    name: Literal["cnn"]
    widths: Annotated[tuple[Width, ...], AtLeast(1)]

    @property
    def title(self) -> str:
        """What the report calls it."""
        return "cnn-" + "-".join(map(str, self.widths))

    def module(self, compute: Compute) -> models.CNN:
        """See `kdjax.models.CNN`."""
        return models.CNN(self.widths, compute=compute)
