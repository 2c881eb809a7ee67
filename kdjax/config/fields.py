"""What fields have in common: their ranges, by name, and which of them are no part of a result."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, TypeVar

from kdjax.ranges import AtLeast, Distinct, In, Regular
from kdjax.types import Fault

T = TypeVar("T")

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

Symbols = Annotated[tuple[Text, ...], AtLeast(1), Distinct()]
"""Of transcripts, in their order; the blank of a CTC model is not among them."""

Regex = Annotated[str, Regular()]
"""Of the names of parameters or groups."""

KERNELS = ".*/kernel"

NO_WEIGHT = "it is zero, and {}, too"
GIVE_WEIGHT = "give one of them a weight"
"""Of the first of two weights; the other one is named."""


def untracked(default: Any) -> Any:
    """A field that says where or how a run is done, and not what it computes.

    It is no part of a stage's fingerprint.
    """
    return dataclasses.field(default=default, metadata={"fingerprint": False})


def parts(value: Any, kind: type[T], path: str = "") -> Iterator[tuple[str, T]]:
    """All of one class in a config, each with its path; what is inside one is not looked at."""
    if isinstance(value, kind):
        yield path, value
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from parts(getattr(value, field.name), kind, f"{path}.{field.name}".strip("."))
    elif isinstance(value, Mapping):
        for name, one in value.items():
            yield from parts(one, kind, f"{path}.{name}")
    elif isinstance(value, tuple):
        for i, one in enumerate(value):
            yield from parts(one, kind, f"{path}[{i}]")


def all_zero(config: Any, first: str, second: str) -> Iterator[Fault]:
    """The fault of two weights of which neither counts."""
    if not getattr(config, first) + getattr(config, second):
        yield f"{first}, {second}", NO_WEIGHT.format(second), GIVE_WEIGHT
