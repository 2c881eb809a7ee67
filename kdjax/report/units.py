"""Numbers as people read them. `None` is always a dash."""

import math
from collections.abc import Sequence
from typing import TypeAlias

Number: TypeAlias = float | int

DASH = "–"
_JOIN = "\u00a0"  # a number and its unit stay on one line
_PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def prefix(values: Sequence[Number | None]) -> tuple[float, str]:
    """SI scale and letter in which the smallest of a column's amounts is at least 1."""
    amounts = [value for value in values if value]
    smallest = min(amounts, default=0)
    for scale, letter in _PREFIXES:
        # 9,610 is read more exactly than 9.6 k.
        if smallest >= scale and max(amounts) >= 1e4:
            return scale, letter
    return 1.0, ""


def decimals(values: Sequence[Number | None], *, most: int) -> int:
    """Decimals that give the smallest of a column's amounts three digits, at most `most`."""
    smallest = min((abs(value) for value in values if value), default=1.0)
    return min(most, max(0, 2 - math.floor(math.log10(smallest))))


def fixed(value: Number | None, places: int) -> str:
    """`12,345.6` with that many decimals."""
    return DASH if value is None else f"{value:,.{places}f}"


def percent(fraction: Number | None) -> str:
    """`97.1` for 0.971: the sign is in the header."""
    return DASH if fraction is None else f"{100 * fraction:.1f}"


def share(fraction: Number | None) -> str:
    """`97.1 %` for 0.971."""
    return DASH if fraction is None else _with_unit(percent(fraction), "%")


def milliseconds(value: Number) -> str:
    """`0.022 ms`, three digits."""
    return _with_unit(fixed(value, decimals([value], most=3)), "ms")


def _with_unit(number: str, unit: str) -> str:
    return f"{number}{_JOIN}{unit}" if unit else number


def interval(ends: tuple[float, float] | None) -> str:
    """`96.2–97.9` for fractions."""
    return DASH if ends is None else f"{percent(ends[0])}–{percent(ends[1])}"


def points(change: Number) -> str:
    """A difference of two fractions in percentage points, signed."""
    text = f"{100 * change:+.1f}".replace("-", "−")
    return f"{'±0.0' if text in ('+0.0', '−0.0') else text}{_JOIN}points"


def compact(value: Number | None, unit: str = "") -> str:
    """`52.3 kB`: three digits and an SI prefix."""
    if value is None:
        return DASH
    scale, letter = next(((s, p) for s, p in _PREFIXES if value >= s), (1.0, ""))
    scaled = value / scale
    places = 0 if scaled == int(scaled) else decimals([scaled], most=2)
    return _with_unit(f"{scaled:,.{places}f}", letter + unit)


def tick(value: Number, unit: str = "") -> str:
    """`1.5 kB`: a round number on an axis, without digits that say nothing."""
    scale, letter = next(((s, p) for s, p in _PREFIXES if abs(value) >= s), (1.0, ""))
    return _with_unit(f"{value / scale:g}", letter + unit)


def times(ratio: Number) -> str:
    """`6.4×`, and `128×` where a decimal says nothing."""
    return f"{ratio:.1f}×" if ratio < 10 else f"{ratio:,.0f}×"


def duration(seconds: Number | None) -> str:
    """`0.4 s`, `12.3 s`, `4 min 05 s`, `2 h 03 min`."""
    if seconds is None:
        return DASH
    if seconds < 60:
        return _with_unit(f"{seconds:.1f}", "s")
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s".replace(" ", _JOIN)
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min".replace(" ", _JOIN)


def count(n: int, noun: str, plural: str | None = None) -> str:
    """`1 seed`, `3 seeds`."""
    return _with_unit(f"{n:,}", noun if n == 1 else plural or f"{noun}s")
