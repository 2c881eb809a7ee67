"""What groups and sensitivities are drawn on: a line for each name, its numbers and marks to the right.

All places are in pixels, from the top left.
"""

import itertools
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

from kdjax.report import svg
from kdjax.report.units import Number

WIDTH, LINE, HEAD, FONT = 880, 18, 26, 11
"""Of the sheet, of a line, of what stands over the first line, of letters."""

_LONGEST = 34  # letters of a name


def sheet(height: Number) -> tuple[Figure, Axes]:
    """A canvas in pixels, from the top left."""
    figure, axes = svg.canvas(WIDTH, round(height))
    figure.subplots_adjust(left=0, right=1, top=1, bottom=0)
    axes.set(xlim=(0, WIDTH), ylim=(round(height), 0))
    axes.set_axis_off()
    return figure, axes


def middle(line: int) -> float:
    """The middle of a line."""
    return HEAD + LINE * (line + 0.5)


def write(axes: Axes, x: Number, y: Number, text: str, **kwargs: Any) -> Text:
    """A text, as high as the others and in the middle of its line unless `kwargs` say otherwise."""
    look = {"color": svg.INK, "fontsize": FONT, "va": "center", "zorder": 5, **kwargs}
    return axes.text(x, y, text, **look)


def write_names(axes: Axes, names: Sequence[str]) -> float:
    """One on each line, to the left; gives where they end. A long one keeps its end."""
    wide = 0.0
    for i, name in enumerate(names):
        short = svg.clean(name if len(name) <= _LONGEST else f"…{name[1 - _LONGEST :]}", _LONGEST)
        wide = max(wide, write(axes, 0, middle(i), short).get_window_extent().width)
    return wide + 8


def shared_prefix(names: Sequence[str]) -> str:
    """What all names begin with, up to a slash; nothing where there is one name."""
    if len(names) < 2:
        return ""
    folders = zip(*(name.split("/")[:-1] for name in names), strict=False)
    shared = itertools.takewhile(lambda parts: len(set(parts)) == 1, folders)
    return "".join(f"{parts[0]}/" for parts in shared)
