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
