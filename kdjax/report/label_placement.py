"""Names beside their points, none on top of another where there is room."""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.text import Text

from kdjax.report import svg

_GAP = 7  # pixels between a point and its name


class Box(NamedTuple):
    """A rectangle in pixels."""

    left: float
    bottom: float
    right: float
    top: float


def overlap(a: Box, b: Box) -> float:
    """Shared area in square pixels."""
    width = min(a.right, b.right) - max(a.left, b.left)
    height = min(a.top, b.top) - max(a.bottom, b.bottom)
    return max(0.0, width) * max(0.0, height)


def spread(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Positions near the wanted ones, in their order and at least `gap` apart.

    They stay within `[low, high]` as long as that has room for all of them.
    """
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    found = [0.0] * len(wanted)
    floor = low
    for i in order:
        found[i] = max(wanted[i], floor)
        floor = found[i] + gap
    ceiling = high
    for i in reversed(order):
        found[i] = min(found[i], ceiling)
        ceiling = found[i] - gap
    return found


def _names_of_axes(axes: Axes) -> list[Box]:
    """Where the chart has names already."""
    texts = (child for child in axes.get_children() if isinstance(child, Text))
    return [Box(*text.get_window_extent().extents) for text in texts if text.get_text()]


def name_points(
    axes: Axes,
    xs: Sequence[float],
    ys: Sequence[float],
    texts: Sequence[str],
    *,
    obstacles: Sequence[tuple[float, float, float, float]],
    strong: Sequence[bool],
) -> None:
    """Writes each text beside its point, as near as leaves the other names and bars readable.

    Args:
      axes: limits already final.
      xs: data coordinates of the points.
      ys: data coordinates of the points.
      texts: one name a point.
      obstacles: `(x0, y0, x1, y1)` in data coordinates of error bars to keep clear of.
      strong: names to write in full ink; the others are lighter.
    """
    frame = axes.get_window_extent()
    full = axes.figure.bbox
    taken = _names_of_axes(axes)
    for x0, y0, x1, y1 in obstacles:
        (left, bottom), (right, top) = axes.transData.transform([(x0, y0), (x1, y1)])
        taken.append(Box(left - 1.5, bottom - 1.5, right + 1.5, top + 1.5))
    pixels = axes.transData.transform(list(zip(xs, ys, strict=True)))
    taken += [Box(x - 5, y - 5, x + 5, y + 5) for x, y in pixels]

    for i in sorted(range(len(texts)), key=lambda i: (-strong[i], -ys[i], xs[i])):
        text = axes.text(
            xs[i],
            ys[i],
            texts[i],
            color=svg.INK,
            alpha=1.0 if strong[i] else 0.7,
            va="center",
            clip_on=False,
            zorder=5,
        )
        size = text.get_window_extent()
        width, height = size.width, 12.0
        x, y = pixels[i]

        def cost(place, x=x, y=y, width=width, height=height):
            side, lift = place
            left = x + _GAP if side > 0 else x - _GAP - width
            left = left if side else x - width / 2
            box = Box(left, y + lift - height / 2, left + width, y + lift + height / 2)
            outside = max(0.0, frame.x0 - 2 - box.left) + max(0.0, box.right - full.x1)
            outside += max(0.0, frame.y0 - box.bottom) + max(0.0, box.top - full.y1)
            crossed = sum(overlap(box, other) for other in taken)
            return 3 * crossed + 60 * outside + 0.9 * abs(lift) + 3 * (side < 0) + 6 * (
                side == 0
            ), box

        lifts = sorted(range(-66, 67, 6), key=abs)
        places = [p for p in itertools.product((1, -1, 0), lifts) if p[0] or abs(p[1]) >= 12]
        (side, lift), (_, box) = min(
            ((place, cost(place)) for place in places), key=lambda found: found[1][0]
        )
        taken.append(box)
        # The end beside the point is what holds if the reader's font is narrower or wider.
        held = {1: box.left, -1: box.right, 0: x}[side]
        text.set_horizontalalignment("left" if side > 0 else "right" if side else "center")
        at = axes.transData.inverted().transform((held, y + lift))
        text.set_position((float(at[0]), float(at[1])))
        if abs(lift) > 14 and side:
            ends = axes.transData.inverted().transform([(x, y), (held - 2 * side, y + lift)])
            axes.plot(*ends.T, color=svg.INK, alpha=0.35, linewidth=0.7, zorder=1.5, clip_on=False)
