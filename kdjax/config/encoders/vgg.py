"""VGG."""

import dataclasses
from typing import Annotated, Literal

from kdjax import models
from kdjax.config.encoders import Encoder, but
from kdjax.config.fields import Width
from kdjax.models import Compute
from kdjax.ranges import In


@dataclasses.dataclass(frozen=True, kw_only=True)
class VGG(Encoder):
    """VGG with BatchNorm, and the mean over space for its hidden linear layers.

    Attributes:
      depth: layers with weights.
      width: channels of the first stage; the others have 2, 4, 8 and 8 times as many.
      pools: stages that end in max-pooling: 3 for images of 32 pixels, 4 for 64.
    """

    name: Literal["vgg"]
    depth: Literal[8, 11, 13, 16, 19]
    width: Width = 64
    pools: Annotated[int, In("[0, 4]")] = 3

    @property
    def title(self) -> str:
        """What the report calls it."""
        return f"vgg{self.depth}" + but("-w", self.width, 64) + but("-p", self.pools, 3)

    def module(self, compute: Compute) -> models.VGG:
        """See `kdjax.models.vgg`."""
        return models.vgg(depth=self.depth, width=self.width, pools=self.pools, compute=compute)
