"""ShuffleNetV2."""

import dataclasses
from collections.abc import Iterator
from typing import Literal

from kdjax import models
from kdjax.config.encoders import Encoder, Multiplier, but, imagenet
from kdjax.models import Compute
from kdjax.models.shufflenet import MULTIPLIERS
from kdjax.types import Fault


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShuffleNetV2(Encoder):
    """ShuffleNetV2 x0.5, x1, x1.5 or x2.

    Attributes:
      multiplier: of the widths: 0.5, 1, 1.5 or 2, as published.
      imagenet_stem: has stride 2 and a max-pooling, as published; otherwise stride 1 and none, for small
        images.
    """

    name: Literal["shufflenet_v2"]
    multiplier: Multiplier = 1.0
    imagenet_stem: bool = False

    def faults(self) -> Iterator[Fault]:
        """A multiplier that is in no table."""
        if self.multiplier not in MULTIPLIERS:
            yield (
                "multiplier",
                f"{self.multiplier:g} is not one of the paper's",
                f"take {', '.join(f'{known:g}' for known in MULTIPLIERS)}",
            )

    @property
    def title(self) -> str:
        """What the report calls it."""
        return "shufflenet-v2" + but("-x", self.multiplier, 1) + imagenet(self.imagenet_stem)

    def module(self, compute: Compute) -> models.ShuffleNetV2:
        """See `kdjax.models.shufflenet_v2`."""
        return models.shufflenet_v2(
            multiplier=self.multiplier, imagenet_stem=self.imagenet_stem, compute=compute
        )
