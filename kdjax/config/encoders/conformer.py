"""Conformers, of the frames of recordings."""

import dataclasses
from collections.abc import Iterator
from typing import ClassVar, Literal

from kdjax import models
from kdjax.config.encoders import Encoder, but
from kdjax.config.fields import Decay, Depth, Width
from kdjax.models import Compute
from kdjax.types import Fault


@dataclasses.dataclass(frozen=True, kw_only=True)
class Conformer(Encoder):
    """A Conformer over rows: those of a picture, or the frames of a recording as the `net` of `log_mel`.

    Attributes:
      width: of a step; `heads` divides it.
      depth: blocks.
      heads: of each attention.
      mlp: hidden units of each MLP; four times the width by default.
      kernel: steps that each depthwise convolution sees.
      stride: rows that become one step.
      pool: the features are the mean over all steps (`mean`), the last one (`last`), or those of every
        step (`none`), which a task needs that answers at each position.
      dropout: share of what is left out in training.
    """

    shaped_by: ClassVar[str | None] = "pool"

    name: Literal["conformer"]
    width: Width = 144
    depth: Depth = 16
    heads: Width = 4
    mlp: Width | None = None
    kernel: Width = 31
    stride: Width = 4
    pool: models.SequencePool = "mean"
    dropout: Decay = 0.1

    def faults(self) -> Iterator[Fault]:
        """Fields that do not go together."""
        yield from models.heads_faults(self.width, self.heads)

    @property
    def title(self) -> str:
        """What the report calls it."""
        return f"conformer-{self.depth}x{self.width}" + but("-s", self.stride, 4)

    def module(self, compute: Compute) -> models.Conformer:
        """See `kdjax.models.conformer`."""
        return models.conformer(
            width=self.width,
            depth=self.depth,
            heads=self.heads,
            mlp=self.mlp,
            kernel=self.kernel,
            stride=self.stride,
            pool=self.pool,
            dropout=self.dropout,
            compute=compute,
        )
