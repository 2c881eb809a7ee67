"""How much one change alone raises the loss: a group that loses units, or a layer that loses bits."""

import html
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from matplotlib.patches import Rectangle

from kdjax.report import grid, svg, table, units
from kdjax.report.pictures import Picture
from kdjax.report.units import Number

Curves = Mapping[str, Mapping[Any, Number | None]]
"""`{group: {sparsity: increase of the loss}}`, or `{layer: {numbers: ...}}`, see `kdjax.quant.Rule.name`.

A sparsity is a number, or text as JSON has it.
"""

_DECADES = 3  # that the shades of increases span


class Changed(NamedTuple):
    """What was changed, one at a time, for the increases of a sensitivity.

    Attributes:
      one: of them.
      how: heads of the columns, as a whole.
      title: of the picture.
      caption: what its numbers are.
      head: of a column, from its key.
      ascending: whether the keys are numbers.
    """

    one: str
    how: str
    title: str
    caption: str
    head: Callable[[Any], str]
    ascending: bool


def _percent(sparsity: Any) -> str:
    return f"{100 * float(sparsity):.3g}\N{NO-BREAK SPACE}%"


UNITS = Changed(
    "Group",
    "sparsity",
    "loss when one group alone is pruned",
    "Increase of the loss, all other groups whole, by the share of the group's units that is masked.",
    _percent,
    True,
)
NUMBERS = Changed(
    "Layer",
    "numbers",
    "loss when one layer alone is quantized",
    "Increase of the loss, all other layers in float, by the numbers of the layer's weights and, where"
    " nothing else is said, of its activations.",
    str,
    False,
)


@svg.drawing()
def sensitivity_map(
    curves: Curves, changed: Changed = UNITS, *, name: str = "sensitivity"
) -> Picture | None:
    """Groups by sparsities, or layers by numbers: the increase of the loss of one change alone.

    Args:
      curves: `curves` or `layers` of the manifest of a sensitivity. A group need not have all
        sparsities.
      changed: which of the two.
      name: prefix of the ids in the picture.

    Returns:
      The picture, `None` where nothing was measured.
    """
    found, columns = _measured(curves, changed)
    if not columns:
        return None
    most = max(value for curve in found.values() for value in curve.values())
    figure, axes = grid.sheet(grid.HEAD + grid.LINE * len(found) + 2)
    left = grid.write_names(
        axes, [group.removeprefix(grid.shared_prefix([*found])) for group in found]
    )
    step = min((grid.WIDTH - left) / len(columns), 90.0)
    look = {"ha": "center", "fontsize": min(grid.FONT, step / 4)}  # six digits and a point fit
    for j, key in enumerate(columns):
        middle = left + step * (j + 0.5)
        grid.write(axes, middle, grid.HEAD - 11, changed.head(key), alpha=0.75, **look)
    for i, curve in enumerate(found.values()):
        for j, key in enumerate(columns):
            middle, value = left + step * (j + 0.5), curve.get(key)
            if shade := _shade(value, most):
                corner, size = (
                    (middle - step / 2 + 1, grid.middle(i) - grid.LINE / 2 + 1),
                    (step - 2, grid.LINE - 2),
                )
                axes.add_patch(Rectangle(corner, *size, color=svg.SECOND, alpha=shade, lw=0))
            grid.write(axes, middle, grid.middle(i), _increase(value), **look)
    return Picture(
        changed.title,
        svg.inline(
            figure,
            name=name,
            label=f"Increase of the loss by {changed.one.lower()} and {changed.how}, at most "
            f"{_increase(most)}",
            titles={},
        ),
        f"{changed.caption} More colour is more loss: {_DECADES} decades, log scale, up to"
        f" {_increase(most)}.",
    )


def sensitivity_table(curves: Curves, changed: Changed = UNITS) -> str:
    """The same as a `<table>`; empty text where nothing was measured.

    Args:
      curves: see `sensitivity_map`.
      changed: likewise.
    """
    found, columns = _measured(curves, changed)
    if not columns:
        return ""
    head = "".join(f'<th scope="col">{html.escape(changed.head(key))}</th>' for key in columns)
    body = "".join(
        f'<tr><th scope="row">{table.breakable(group)}</th>'
        + "".join(f"<td>{html.escape(_increase(curve.get(s)))}</td>" for s in columns)
        + "</tr>"
        for group, curve in found.items()
    )
    return (
        f'<table><thead><tr><th scope="col">{changed.one}</th>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table>"
    )


def _measured(curves: Curves, changed: Changed) -> tuple[dict[str, dict[Any, float]], list[Any]]:
    """The finite increases, and the keys of all columns, in order."""
    found = {
        group: {
            (float(key) if changed.ascending else key): float(value)
            for key, value in curve.items()
            if value is not None and math.isfinite(value)
        }
        for group, curve in curves.items()
    }
    columns = list(dict.fromkeys(key for curve in found.values() for key in curve))
    return found, sorted(columns) if changed.ascending else columns


def _shade(value: float | None, most: float) -> float:
    """Opacity: 0 for none, a fall, or less than the decades show; light enough for ink on it."""
    if value is None or value <= 0:
        return 0.0
    return 0.65 * max(0.0, 1 + (math.log10(value) - math.log10(most)) / _DECADES)


def _increase(value: float | None) -> str:
    """Two digits, no more than four decimals; from a million on with an exponent."""
    if value is None:
        return units.DASH
    if abs(value) >= 1e6:
        return f"{value:.1e}".replace("-", "−")
    places = 0 if abs(value) >= 10 else min(4, 1 - math.floor(math.log10(max(abs(value), 1e-9))))
    text = f"{value:,.{places}f}"
    return "0" if not float(text.replace(",", "")) else text.replace("-", "−")
