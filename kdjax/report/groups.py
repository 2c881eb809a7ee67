"""Which layers share their units, how many are left of them, and what can lose none."""

import html
import posixpath
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.text import Text

from kdjax.report import grid, svg, table, units
from kdjax.report.pictures import Picture

_BAR = 90  # pixels that a bar is wide
_GAP = 7  # pixels between a text and what it is of
_MOST_BESIDE = 2  # groups of one line that are named one by one
_LONGEST_REASON = 60


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
    figure, axes = grid.sheet(grid.HEAD + grid.LINE * len(lines) + 6)
    left = grid.write_names(axes, [line.name for line in lines])
    begins: dict[int, list[int]] = {}
    for number in range(len(groups)):
        first = next(i for i, line in enumerate(lines) if number in line.roles)
        begins.setdefault(first, []).append(number)
    bars = _Bars.of(axes, groups, begins)
    step = min((grid.WIDTH - left - bars.width) / len(groups), 44.0)
    right = left + step * len(groups)
    for i in range(len(lines)):
        axes.plot([left, right], [grid.middle(i)] * 2, color=svg.INK, alpha=0.1, lw=0.8, zorder=1)

    titles, marks = {}, {"with": [], "in": [], "out": []}
    every = next(n for n in (1, 2, 5, 10, len(groups)) if n * step >= 18 or n >= len(groups))
    for number, group in enumerate(groups):
        x = left + step * (number + 0.5)
        if (number + 1) % every == 0:
            grid.write(axes, x, grid.HEAD - 11, f"{number + 1}", ha="center", alpha=0.75)
        at = [i for i, line in enumerate(lines) if number in line.roles]
        ends = [grid.middle(at[0]), grid.middle(at[-1])]
        axes.plot([x, x], ends, color=svg.ACCENT, alpha=0.45, lw=1.4, gid=f"tie{number}")
        for i in at:
            for role in lines[i].roles[number]:
                marks[role].append((x, grid.middle(i)))
        titles[f"tie{number}"] = titles[f"bar{number}"] = _said(number, group)
    _draw_marks(axes, marks, size=min(8.0, step * 0.62))

    bars.draw(axes, right, groups)

    size, kept = (sum(group[key] for group in groups) for key in ("size", "kept"))
    title = f"{kept:,} of {size:,} units kept"
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
    prefix = grid.shared_prefix([group["name"] for group in groups])
    return [_Line(_joined([n.removeprefix(prefix) for n in names]), of) for names, of in found]


def _joined(names: Sequence[str]) -> str:
    """`stem/conv` alone, and `stem: conv, norm` for several of one parent."""
    if len(names) == 1:
        return names[0]
    parent = posixpath.dirname(names[0])
    leaves = ", ".join(posixpath.basename(name) for name in names)
    return f"{parent}: {leaves}" if parent else leaves


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


class _Bars(NamedTuple):
    """What is kept of the groups that begin on each line, those of one line one under the other."""

    begins: Mapping[int, list[int]]
    numbers: Mapping[int, Text]
    kept: Mapping[int, Text]

    @classmethod
    def of(
        cls, axes: Axes, groups: Sequence[Mapping[str, Any]], begins: Mapping[int, list[int]]
    ) -> "_Bars":
        """Their texts, still without a place: how wide they are decides how wide the groups are."""
        numbers, kept = {}, {}
        for i, here in begins.items():
            if len(here) <= _MOST_BESIDE:
                named = ", ".join(f"{number + 1}" for number in here)
                said = "; ".join(_kept(groups[number]) for number in here)
            else:
                named = f"{here[0] + 1} …"
                said = _kept({k: sum(groups[n][k] for n in here) for k in ("size", "kept")})
            numbers[i] = grid.write(axes, 0, grid.middle(i), named, ha="right", alpha=0.75)
            kept[i] = grid.write(axes, 0, grid.middle(i), said)
        return cls(begins, numbers, kept)

    @property
    def width(self) -> float:
        return 4 * _GAP + _wide(self.numbers) + _BAR + _wide(self.kept)

    def draw(self, axes: Axes, right: float, groups: Sequence[Mapping[str, Any]]) -> None:
        """To the right of what ends at `right`."""
        left = right + 3 * _GAP + _wide(self.numbers)
        grid.write(axes, left, grid.HEAD - 11, "units kept", alpha=0.75)
        for i, numbers in self.begins.items():
            pitch = 8 / len(numbers)
            height = pitch if len(numbers) == 1 else 0.8 * pitch
            for j, number in enumerate(numbers):
                corner = left, grid.middle(i) - 4 + j * pitch
                share = groups[number]["kept"] / groups[number]["size"]
                axes.add_patch(Rectangle(corner, _BAR, height, color=svg.INK, alpha=0.14, lw=0))
                bar = Rectangle(corner, _BAR * share, height, color=svg.ACCENT, alpha=0.9, lw=0)
                axes.add_patch(bar).set_gid(f"bar{number}")
            self.numbers[i].set_x(left - _GAP)
            self.kept[i].set_x(left + _BAR + _GAP)


def _wide(texts: Mapping[int, Text]) -> float:
    return max(text.get_window_extent().width for text in texts.values())


def _draw_points(axes: Axes, points: Sequence[tuple[float, float]], look) -> None:
    xs, ys = zip(*points, strict=True)
    axes.plot(xs, ys, linestyle="none", markeredgecolor=svg.ACCENT, zorder=4, **look)


def frozen_list(frozen: Mapping[str, str]) -> str:
    """The axes that cannot lose anything as a `<dl>` by reason; empty text where there is none.

    Names that differ in their numbers alone are one, with a `*` for each number.

    Args:
      frozen: `{"params/stem/conv/kernel[2]": why}`.
    """
    reasons: dict[str, dict[str, list[str]]] = {}
    for variable, why in frozen.items():
        place = variable.removeprefix("params/")
        name, bracket, axis = place.rpartition("[")
        alike = reasons.setdefault(svg.clean(why, _LONGEST_REASON), {})
        alike.setdefault(re.sub(r"\d+", "*", name) + bracket + axis, []).append(place)
    items = "".join(
        f"<div><dt>{html.escape(why)}</dt>"
        f"<dd>{', '.join(_alike(*names) for names in alike.items())}</dd></div>"
        for why, alike in reasons.items()
    )
    return f'<dl class="legend">{items}</dl>' if items else ""


def _alike(pattern: str, places: Sequence[str]) -> str:
    if len(places) == 1:
        return table.breakable(places[0])
    return f"{table.breakable(pattern)} ({len(places)})"
