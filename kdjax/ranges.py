"""What a value may be beside its type, written beside it: `Annotated[float, In("[0, 1)")]`.

`kdjax.parse` holds every value against these, and shows them where it describes a field. None of them
looks at anything but the value: what needs another field stands in the `faults` of the dataclass.
"""

import dataclasses
import itertools
import re
import struct
from collections.abc import Sequence, Sized
from typing import Any, Protocol, runtime_checkable

_INTERVAL = re.compile(r"([\[(])(\S+), (\S+)([\])])")
_SMALLEST = 2.0**-126  # what is nearer to zero may be zero on a device


@runtime_checkable
class Constraint(Protocol):
    """Says what is wrong with a value of the right type; its `str` says what would be right."""

    def fault(self, value: Any) -> str | None:
        """What is wrong, as `"-1 is not in [0, 1)"`; None where it is right."""
        ...


def _end(text: str) -> float:
    base, _, power = text.partition("^")
    return float(base) ** float(power or 1)


@dataclasses.dataclass(frozen=True)
class In:
    """A number of an interval, in the notation of mathematics: `(0, inf)`, `[1, 2^31)`.

    A float is also held against it in float32, which is what computes with it: 1 - 1e-9 is one there.
    """

    interval: str

    def __post_init__(self):
        if _INTERVAL.fullmatch(self.interval) is None:
            raise ValueError(f"{self.interval!r} is no interval: write '[0, 1)'")

    def __str__(self) -> str:
        return f"in {self.interval}"

    def __contains__(self, value: float | int) -> bool:
        found = _INTERVAL.fullmatch(self.interval)
        assert found is not None
        opens, low, high, closes = found.groups()
        low, high = _end(low), _end(high)
        above = low <= value if opens == "[" else low < value
        return above and (value <= high if closes == "]" else value < high)

    def fault(self, value: Any) -> str | None:
        """See `Constraint`."""
        if value not in self:
            return f"{value} is not {self}"
        if isinstance(value, float) and (computed := in_float32(value)) not in self:
            return f"{value} is {computed:g} in float32, which is not {self}"
        return None


def in_float32(value: float) -> float:
    """The number that a device has for it; infinite where float32 has none as large."""
    try:
        (found,) = struct.unpack("f", struct.pack("f", value))
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")
    return found if abs(found) >= _SMALLEST else 0.0


@dataclasses.dataclass(frozen=True)
class AtLeast:
    """A list, text or mapping that is not shorter."""

    length: int

    def __str__(self) -> str:
        return "that is not empty" if self.length == 1 else f"of at least {self.length}"

    def fault(self, value: Sized) -> str | None:
        """See `Constraint`."""
        if len(value) >= self.length:
            return None
        least = "one" if self.length == 1 else str(self.length)
        return f"{len(value) or 'none'} given; give at least {least}"


@dataclasses.dataclass(frozen=True)
class Distinct:
    """A list that has nothing twice."""

    def __str__(self) -> str:
        return "none twice"

    def fault(self, value: Sequence[Any]) -> str | None:
        """See `Constraint`."""
        for i, item in enumerate(value):
            if item in value[:i]:
                return f"{getattr(item, 'name', item)} stands twice in it; give each once"
        return None


@dataclasses.dataclass(frozen=True)
class Ascending:
    """A list of numbers of which each is above the one before it, or as large where `equal` says so."""

    equal: bool = False

    def __str__(self) -> str:
        return "from low to high" if self.equal else "ascending"

    def fault(self, value: Sequence[float | int]) -> str | None:
        """See `Constraint`."""
        for before, after in itertools.pairwise(value):
            if before > after or (before == after and not self.equal):
                return f"{after} comes after {before}; they are {self}"
        return None


@dataclasses.dataclass(frozen=True)
class Multiple:
    """A number that is `of` times a whole number, and `plus`: `Multiple(2, plus=1)` is an odd one."""

    of: int
    plus: int = 0

    def __str__(self) -> str:
        return f"{self.of}n + {self.plus}" if self.plus else f"a multiple of {self.of}"

    def fault(self, value: int) -> str | None:
        """See `Constraint`."""
        return None if (value - self.plus) % self.of == 0 else f"{value} is not {self}"


@dataclasses.dataclass(frozen=True)
class Regular:
    """A text that is a regular expression."""

    def __str__(self) -> str:
        return "that is a regular expression"

    def fault(self, value: str) -> str | None:
        """See `Constraint`."""
        try:
            re.compile(value)
        except (re.error, RecursionError, OverflowError) as error:
            return f"{value!r} is no regular expression: {error}"
        return None
