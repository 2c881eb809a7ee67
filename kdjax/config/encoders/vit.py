"""The vision transformer."""

import dataclasses
from collections.abc import Iterator
from typing import Literal

from kdjax import models
from kdjax.config.encoders import Encoder
from kdjax.config.fields import Depth, Width
from kdjax.config.views import Side
from kdjax.models import Compute
from kdjax.types import Fault


@dataclasses.dataclass(frozen=True, kw_only=True)
class ViT(Encoder):
    """A vision transformer whose features are the mean over its tokens; ViT-Ti by default.

    Attributes:
      width: of a token.
      depth: blocks.
      heads: of each attention; divides `width`.
      mlp: hidden units of each block.
      patch: side in pixels; divides the height and the width of the views.
    """

    name: Literal["vit"]
    width: Width = 192
    depth: Depth = 12
    heads: Width = 3
    mlp: Width = 768
    patch: Side = 4

    def faults(self) -> Iterator[Fault]:
        """Fields that do not go together."""
        if self.width % self.heads:
            yield (
                "heads, width",
                f"{self.heads} do not divide the width of {self.width}",
                "take a divisor",
            )

    @property
    def title(self) -> str:
        """What the report calls it."""
        return f"vit-w{self.width}-d{self.depth}-h{self.heads}-m{self.mlp}-p{self.patch}"

    def module(self, compute: Compute) -> models.ViT:
        """See `kdjax.models.vit`."""
        return models.vit(
            width=self.width,
            depth=self.depth,
            heads=self.heads,
            mlp=self.mlp,
            patch=self.patch,
            compute=compute,
        )
