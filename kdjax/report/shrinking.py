"""Which layers share their units, how many are left of them, and how much each group matters."""

import html
import math
import posixpath
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from kdjax.report import svg, table, units
from kdjax.report.pictures import Picture
from kdjax.report.units import Number

Curves = Mapping[str, Mapping[Any, Number | None]]
"""`{group: {sparsity: increase of the loss}}`; a sparsity is a number, or text as JSON has it."""

_WIDTH, _LINE, _HEAD, _BAR, _FONT = 880, 17, 26, 90, 10  # pixels
_LONGEST = 34  # letters of a name
_DECADES = 3  # that the shades of increases span


class _Line(NamedTuple):
    """One line of the matrix: a layer and the norms after it, with its roles in groups by number."""

    name: str
    roles: Mapping[int, set[str]]


@svg.drawing()
def group_matrix(groups: Sequence[Mapping[str, Any]], *, name: str = "groups") -> Picture | None:
    """Layers by groups: who makes the units, who reads them, who goes along; and how many are left.

    A layer that only goes along, such as a norm, is on the line of the layer before it where both
    have one parent.

    Args:
      groups: what `kdjax.shrink.described` gives, also by way of JSON:
        `[{"name", "size", "kept", "members": [{"layer", "role": "out" | "in" | "with", "place"}]}]`.
      name: prefix of the ids in the picture.

    Returns:
      The picture, `None` where there is no group.
    """
    if not groups:
        return None
    lines = _lines(groups)
    figure, axes = _sheet(_HEAD + _LINE * len(lines) + 6)
    left = _write_names(axes, [line.name for line in lines])
    step = min((_WIDTH - 194.0 - left) / len(groups), 44.0)
    right = left + step * len(groups)
    for i in range(len(lines)):
        axes.plot([left, right], [_y(i)] * 2, color=svg.INK, alpha=0.1, lw=0.8, zorder=1)

    begins: dict[int, list[int]] = {}
    titles, marks = {}, {"with": [], "in": [], "out": []}
    for number, group in enumerate(groups):
        x = left + step * (number + 0.5)
        size = min(_FONT, step * 0.62)
        _write(axes, x, _HEAD - 11, f"{number + 1}", ha="center", alpha=0.75, fontsize=size)
        at = [i for i, line in enumerate(lines) if number in line.roles]
        begins.setdefault(at[0], []).append(number)
        ends = [_y(at[0]), _y(at[-1])]
        axes.plot([x, x], ends, color=svg.ACCENT, alpha=0.45, lw=1.4, gid=f"tie{number}")
        for i in at:
            for role in lines[i].roles[number]:
                marks[role].append((x, _y(i)))
        titles[f"tie{number}"] = titles[f"bar{number}"] = _said(number, group)
    _draw_marks(axes, marks, size=min(8.0, step * 0.62))

    _draw_bars(axes, right + 26, groups, begins)

    size, kept = (sum(group[key] for group in groups) for key in ("size", "kept"))
    title = f"Groups of units: {kept:,} of {size:,} kept"
    label = f"{title}. {'; '.join(titles[f'tie{number}'] for number in range(len(groups)))}"
    return Picture(
        title,
        svg.inline(figure, name=name, label=label, titles=titles),
        "Each column is a group: a unit of it goes in all of its layers or in none. Layers in the"
        " order of the forward pass; the bar is on the line where the group begins.",
        ("● makes the units", "○ reads them", *(["– goes along"] if marks["with"] else [])),
    )


def _lines(groups: Sequence[Mapping[str, Any]]) -> list[_Line]:
    """In the order of the forward pass."""
    layers: dict[tuple[int, str], dict[int, set[str]]] = {}
    for number, group in enumerate(groups):
        for member in group["members"]:
            roles = layers.setdefault((member["place"], member["layer"]), {})
            roles.setdefault(number, set()).add(member["role"])
    found: list[tuple[list[str], dict[int, set[str]]]] = []
    for (_, layer), roles in sorted(layers.items()):
        alone = all(of == {"with"} for of in roles.values())
        if alone and found and roles.keys() <= found[-1][1].keys():
            names, _ = found[-1]
            if posixpath.dirname(names[0]) == posixpath.dirname(layer):
                names.append(layer)
                continue
        found.append(([layer], roles))
    prefix = _prefix([group["name"] for group in groups])
    return [_Line(_joined([n.removeprefix(prefix) for n in names]), of) for names, of in found]


def _joined(names: Sequence[str]) -> str:
    """`stem/conv` alone, and `stem: conv, norm` for several of one parent."""
    if len(names) == 1:
        return names[0]
    parent = posixpath.dirname(names[0])
    leaves = ", ".join(posixpath.basename(name) for name in names)
    return f"{parent}: {leaves}" if parent else leaves


def _prefix(names: Sequence[str]) -> str:
    """What all names begin with, up to a slash."""
    shared = posixpath.commonpath([posixpath.dirname(name) for name in names])
    return f"{shared}/" if shared else ""


def _said(number: int, group: Mapping[str, Any]) -> str:
    layers = len({member["layer"] for member in group["members"]})
    return f"{number + 1} {group['name']}: {_kept(group)} in {units.count(layers, 'layer')}"


def _kept(group: Mapping[str, Any]) -> str:
    return f"{group['kept']:,} of {group['size']:,}"


def _draw_marks(
    axes: Axes, marks: Mapping[str, Sequence[tuple[float, float]]], *, size: float
) -> None:
    looks = {
        "with": {"marker": "_", "markersize": size, "markeredgewidth": 1.8},
        "in": {"marker": "o", "markersize": size, "markerfacecolor": svg.PAPER},
        # A layer that reads what it makes shows both: the one inside the other.
        "out": {"marker": "o", "markersize": size, "markerfacecolor": svg.ACCENT},
    }
    both = set(marks["in"]) & set(marks["out"])
    for role, look in looks.items():
        points = [point for point in marks[role] if role != "out" or point not in both]
        if points:
            _draw_points(axes, points, look)
    if both:
        _draw_points(axes, sorted(both), {**looks["out"], "markersize": size / 2})


def _draw_bars(
    axes: Axes, left: float, groups: Sequence[Mapping[str, Any]], begins: Mapping[int, list[int]]
) -> None:
    """What is kept of the groups that begin on each line, those of one line one under the other."""
    _write(axes, left, _HEAD - 11, "units kept", alpha=0.75)
    for i, numbers in begins.items():
        pitch = 8 / len(numbers)
        height = pitch if len(numbers) == 1 else 0.8 * pitch
        for j, number in enumerate(numbers):
            corner = left, _y(i) - 4 + j * pitch
            share = groups[number]["kept"] / groups[number]["size"]
            axes.add_patch(Rectangle(corner, _BAR, height, color=svg.INK, alpha=0.14, lw=0))
            bar = Rectangle(corner, _BAR * share, height, color=svg.ACCENT, alpha=0.9, lw=0)
            axes.add_patch(bar).set_gid(f"bar{number}")
        named = ", ".join(f"{number + 1}" for number in numbers)
        _write(axes, left - 6, _y(i), named, ha="right", alpha=0.75)
        _write(axes, left + _BAR + 7, _y(i), "; ".join(_kept(groups[n]) for n in numbers))


def _draw_points(axes: Axes, points: Sequence[tuple[float, float]], look) -> None:
    xs, ys = zip(*points, strict=True)
    axes.plot(xs, ys, linestyle="none", markeredgecolor=svg.ACCENT, zorder=4, **look)


def _sheet(height: float) -> tuple[Figure, Axes]:
    """A canvas in pixels, from the top left."""
    figure, axes = svg.canvas(_WIDTH, round(height))
    figure.subplots_adjust(left=0, right=1, top=1, bottom=0)
    axes.set(xlim=(0, _WIDTH), ylim=(round(height), 0))
    axes.set_axis_off()
    return figure, axes


def _y(line: int) -> float:
    """The middle of a line."""
    return _HEAD + _LINE * (line + 0.5)


def _write(axes: Axes, x: float, y: float, text: str, **kwargs: Any):
    look = {"color": svg.INK, "fontsize": _FONT, "va": "center", "zorder": 5, **kwargs}
    return axes.text(x, y, text, **look)


def _write_names(axes: Axes, names: Sequence[str]) -> float:
    """One on each line, to the left; gives where they end. A long one keeps its end."""
    wide = 0.0
    for i, name in enumerate(names):
        short = svg.clean(name if len(name) <= _LONGEST else f"…{name[1 - _LONGEST :]}", _LONGEST)
        wide = max(wide, _write(axes, 0, _y(i), short).get_window_extent().width)
    return wide + 8


@svg.drawing()
def sensitivity_map(curves: Curves, *, name: str = "sensitivity") -> Picture | None:
    """Groups by sparsities: the increase of the loss when one group alone is pruned.

    Args:
      curves: what `kdjax.shrink.sensitivity` gives, also by way of JSON. A group need not have all
        sparsities.
      name: prefix of the ids in the picture.

    Returns:
      The picture, `None` where nothing was measured.
    """
    found, columns = _measured(curves)
    if not columns:
        return None
    most = max(value for curve in found.values() for value in curve.values())
    figure, axes = _sheet(_HEAD + _LINE * len(found) + 2)
    left = _write_names(axes, [group.removeprefix(_prefix([*found])) for group in found])
    step = min((_WIDTH - left) / len(columns), 90.0)
    for j, sparsity in enumerate(columns):
        middle = left + step * (j + 0.5)
        _write(axes, middle, _HEAD - 11, _percent(sparsity), ha="center", alpha=0.75)
    for i, curve in enumerate(found.values()):
        for j, sparsity in enumerate(columns):
            middle, value = left + step * (j + 0.5), curve.get(sparsity)
            if shade := _shade(value, most):
                corner, size = (middle - step / 2 + 1, _y(i) - _LINE / 2 + 1), (step - 2, _LINE - 2)
                axes.add_patch(Rectangle(corner, *size, color=svg.SECOND, alpha=shade, lw=0))
            _write(axes, middle, _y(i), _increase(value), ha="center", fontsize=_FONT - 0.5)
    return Picture(
        "Sensitivity: the loss when one group alone is pruned",
        svg.inline(
            figure,
            name=name,
            label=f"Increase of the loss by group and sparsity, at most {_increase(most)}",
            titles={},
        ),
        "Increase of the loss, all other groups whole, by the share of the group's units that is"
        f" masked. More colour is more loss: {_DECADES} decades, log scale, up to {_increase(most)}.",
    )


def sensitivity_table(curves: Curves) -> str:
    """The same as a `<table>`; empty text where nothing was measured.

    Args:
      curves: see `sensitivity_map`.
    """
    found, columns = _measured(curves)
    if not columns:
        return ""
    head = "".join(f'<th scope="col">{_percent(sparsity)}</th>' for sparsity in columns)
    body = "".join(
        f'<tr><th scope="row">{table.breakable(group)}</th>'
        + "".join(f"<td>{html.escape(_increase(curve.get(s)))}</td>" for s in columns)
        + "</tr>"
        for group, curve in found.items()
    )
    return (
        f'<table><thead><tr><th scope="col">Group</th>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table>"
    )


def _measured(curves: Curves) -> tuple[dict[str, dict[float, float]], list[float]]:
    """The finite increases by numbers, and all sparsities, ascending."""
    found = {
        group: {
            float(sparsity): float(value)
            for sparsity, value in curve.items()
            if value is not None and math.isfinite(value)
        }
        for group, curve in curves.items()
    }
    return found, sorted({sparsity for curve in found.values() for sparsity in curve})


def _shade(value: float | None, most: float) -> float:
    """Opacity: 0 for none, a fall, or less than the decades show; light enough for ink on it."""
    if value is None or value <= 0:
        return 0.0
    return 0.65 * max(0.0, 1 + math.log10(value / most) / _DECADES)


def _percent(sparsity: float) -> str:
    return f"{100 * sparsity:.3g}\N{NO-BREAK SPACE}%"


def _increase(value: float | None) -> str:
    """Two digits, no more than four decimals."""
    if value is None:
        return units.DASH
    places = 0 if abs(value) >= 10 else min(4, 1 - math.floor(math.log10(max(abs(value), 1e-9))))
    text = f"{value:,.{places}f}"
    return "0" if not float(text.replace(",", "")) else text.replace("-", "−")
