"""Wide residual networks."""

import dataclasses
from typing import Annotated, Literal

from kdjax import models
from kdjax.config.encoders import Encoder
from kdjax.models import Compute
from kdjax.ranges import In, Multiple


@dataclasses.dataclass(frozen=True, kw_only=True)
class WideResNet(Encoder):
    """`WRN-{depth}-{widen}` of the CIFAR distillation tables, such as WRN-40-2.

    Attributes:
      depth: layers with weights.
      widen: factor of the widths, which are 16, 32 and 64 without it.
    """

    name: Literal["wide_resnet"]
    depth: Annotated[int, In("[10, 2^10]"), Multiple(6, plus=4)]
    widen: Annotated[int, In("[1, 100]")] = 1

    @property
    def title(self) -> str:
        """What the report calls it."""
        return f"wrn-{self.depth}-{self.widen}"

    def module(self, compute: Compute) -> models.WideResNet:
        """See `kdjax.models.wide_resnet`."""
        return models.wide_resnet(self.depth, widen=self.widen, compute=compute)
