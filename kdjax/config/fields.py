"""What fields have in common: their ranges, by name, and which of them are no part of a result."""

import dataclasses
from typing import Annotated, Any

from kdjax.ranges import AtLeast, In, Regular

Count = Annotated[int, In("[1, 2^31)")]
"""Of things of which there is at least one."""

Natural = Annotated[int, In("[0, 2^31)")]
"""Of things of which there may be none; a step."""

Width = Annotated[int, In("[1, 2^20]")]
"""Of a layer."""

Depth = Annotated[int, In("[1, 2^10]")]
"""Layers, or blocks of them."""

Positive = Annotated[float, In("(0, inf)")]
"""Divisors, and what makes no sense at zero."""

NonNegative = Annotated[float, In("[0, inf)")]
"""Weights, and what zero switches off."""

Share = Annotated[float, In("[0, 1]")]
"""A part of a whole, a probability."""

Seed = Annotated[int, In("[0, 2^32)")]
"""Two that differ by 2^32 would be one key."""

Decay = Annotated[float, In("[0, 1)")]
"""Of a running mean that also sees what is new."""

Sparsity = Annotated[float, In("[0, 1)")]
"""A part that goes, of which something stays."""

Text = Annotated[str, AtLeast(1)]
"""A name, a path."""

Regex = Annotated[str, Regular()]
"""Of the names of parameters or groups."""

KERNELS = ".*/kernel"


def aside(default: Any) -> Any:
    """A field that says where or how a run is done, and not what it computes.

    It is no part of a stage's fingerprint.
    """
    return dataclasses.field(default=default, metadata={"fingerprint": False})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Seeded:
    """What every stage has.

    Attributes:
      seed: it is run for this seed alone, and every seed of the run takes what it left: one teacher of
        many students. What it needs has the same seed. None: it is run for each seed of the run.
    """

    seed: Seed | None = aside(None)  # the seed that a stage is run for is part of its fingerprint

    def is_measured(self) -> bool:
        """Whether what it leaves is scored on test examples and their labels."""
        return False

    def seed_of(self, seed: int) -> int:
        """The seed that it is run for, in a run of this one."""
        return seed if self.seed is None else self.seed
