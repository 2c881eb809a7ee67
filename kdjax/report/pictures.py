"""A score against cost, with the front of the models worth having."""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from kdjax.report import scores, svg, units
from kdjax.report.headline import settings, settings_text
from kdjax.report.label_placement import name_points
from kdjax.report.pareto import pareto_front
from kdjax.report.rows import Row, labels
from kdjax.report.scores import Score

_MARKERS = (("o", "●"), ("s", "■"), ("^", "▲"), ("D", "◆"), ("v", "▼"), ("P", "✚"))
_STEPS = (
    *((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7)),
    *(tuple(i / n for i in range(n, 10 * n)) for n in (10, 20, 50, 100)),
)


class Picture(NamedTuple):
    """An `<svg>` element with the plain text that belongs around it."""

    title: str
    svg: str
    caption: str
    legend: tuple[str, ...] = ()


def log_ticks(low: float, high: float) -> list[float]:
    """Three to six round numbers within a positive range, for a log axis."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    for steps in _STEPS:
        # Through text, or 3 * 10^-1 becomes 0.30000000000000004.
        ticks = [float(f"{step}e{power}") for power in range(first, last + 1) for step in steps]
        ticks = [tick for tick in ticks if low <= tick <= high]
        if len(ticks) >= 3:
            return ticks[:: math.ceil(len(ticks) / 6)]
    return sorted({low, high})


def log_axis(axis, low: float, high: float, show: Callable[[units.Number], str]) -> None:
    """Round ticks, named by `show`, on an axis that is logarithmic already."""
    axis.set_major_locator(FixedLocator(log_ticks(low, high)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: show(value)))


class _Point(NamedTuple):
    """A model in the plane: what it costs, a worse cost in its tail, and how good it is."""

    name: str
    cost: float
    tail: float
    score: Score
    runtime: str | None


def score_versus_size(rows: Sequence[Row]) -> Picture | None:
    """The score against bytes on disk; `None` with fewer than two such rows."""
    rows = _comparable(rows)
    points = [
        _Point(name, float(size), float(size), row.score, row.runtime)
        for name, row in zip(labels(rows), rows, strict=True)
        if (size := row.bytes_on_disk) and row.score is not None
    ]
    if len(points) < 2:
        return None
    quality = _title(rows)
    return _tradeoff(
        points,
        _runtimes(rows),
        show=lambda value: units.tick(value, "B"),
        quality=quality,
        title=f"{quality[0].upper()}{quality[1:]} and size",
        axis="size on disk, log scale",
        name="size",
    )


def _comparable(rows: Sequence[Row]) -> list[Row]:
    """Those that are compared by the same score as the first that has one, and those without."""
    first = next((row.primary for row in rows if row.primary is not None), None)
    return [row for row in rows if row.primary in (None, first)]


def _title(rows: Sequence[Row]) -> str:
    return scores.title(next(row.primary for row in rows if row.primary is not None))


def score_versus_latency(rows: Sequence[Row]) -> list[Picture]:
    """The score against median latency, one picture for each setting that can be compared."""
    rows = _comparable(rows)
    alike: dict[tuple[int | None, int | None], list[_Point]] = {}
    for name, row in zip(labels(rows), rows, strict=True):
        if row.latency_ms_p50 and row.score is not None:
            p50, p95 = row.latency_ms_p50, row.latency_ms_p95 or row.latency_ms_p50
            point = _Point(name, p50, p95, row.score, row.runtime)
            alike.setdefault(settings(row), []).append(point)
    quality = _title(rows) if alike else ""
    return [
        _tradeoff(
            points,
            _runtimes(rows),
            show=lambda value: units.tick(value, "ms"),
            quality=quality,
            title=": ".join(
                filter(
                    None,
                    [f"{quality[0].upper()}{quality[1:]} and latency", settings_text(setting)],
                )
            ),
            axis="median latency of one call, log scale",
            name=f"latency{i}",
        )
        for i, (setting, points) in enumerate(alike.items())
        if len(points) > 1
    ]


def _runtimes(rows: Sequence[Row]) -> list[str | None]:
    """In the order of their marks, which is the same in every picture."""
    return list(dict.fromkeys(row.runtime for row in rows))


@svg.drawing()
def _tradeoff(
    points: Sequence[_Point],
    runtimes: Sequence[str | None],
    *,
    show: Callable[[units.Number], str],
    quality: str,
    title: str,
    axis: str,
    name: str,
) -> Picture:
    figure, axes = svg.canvas(440, 310)
    figure.subplots_adjust(left=0.09, right=0.985, top=0.92, bottom=0.145)
    axes.set_xlabel(axis, color=svg.INK, alpha=0.75, loc="right", labelpad=5)
    unit = ", %" if points[0].score.fraction else ""
    axes.set_title(quality + unit, color=svg.INK, alpha=0.75, loc="left", x=-0.075, fontsize=11)
    _limits(axes, points, show)
    right = axes.get_xlim()[1]

    front = pareto_front([p.cost for p in points], [p.score.worth for p in points])
    stairs = [(points[i].cost, points[i].score.value) for i in front]
    stairs.append((right, stairs[-1][1]))
    axes.step(*zip(*stairs, strict=True), where="post", color=svg.ACCENT, alpha=0.55, lw=1.6)
    obstacles = [(x, y, x1, y) for (x, y), (x1, _) in itertools.pairwise(stairs)]
    obstacles += [(x, y, x, y1) for (_, y), (x, y1) in itertools.pairwise(stairs)]

    titles = {}
    for i, point in enumerate(points):
        marker, _ = _MARKERS[runtimes.index(point.runtime) % len(_MARKERS)]
        _draw(axes, point, marker, on_front=i in front, gid=f"point{i}")
        score = point.score
        low, high = score.ci95 or (score.value, score.value)
        obstacles += [
            (point.cost, low, point.cost, high),
            (point.cost, score.value, point.tail, score.value),
        ]
        spread = f" (95 % interval {score.interval})" if score.ci95 else ""
        known = f"{score.shown}{spread}, {show(point.cost)}"
        titles[f"point{i}"] = f"{point.name}: {known}"
    name_points(
        axes,
        [point.cost for point in points],
        [point.score.value for point in points],
        [svg.clean(point.name, 24) for point in points],
        obstacles=obstacles,
        strong=[i in front for i in range(len(points))],
    )
    legend = [
        f"{_MARKERS[i % len(_MARKERS)][1]} {runtime or 'not timed'}"
        for i, runtime in enumerate(runtimes)
        if runtime in {point.runtime for point in points}
    ]
    label = f"{title}: {'; '.join(titles.values())}"
    return Picture(
        title,
        svg.inline(figure, name=name, label=label, titles=titles),
        _caption(points, quality),
        tuple(legend) if len(legend) > 1 else (),
    )


def _limits(axes: Axes, points: Sequence[_Point], show: Callable[[units.Number], str]) -> None:
    """Room for every bar, and for names to the right of the last point."""
    least, most = min(p.cost for p in points), max(p.tail for p in points)
    ratio = max(most / least, 1.5)
    left, right = least / ratio**0.09, most * ratio**0.17
    axes.set_xscale("log")
    axes.set_xlim(left, right)
    log_axis(axes.xaxis, left, right, show)

    ends = [end for p in points for end in (*(p.score.ci95 or ()), p.score.value)]
    pad = 0.08 * max(max(ends) - min(ends), 0.01)
    limits = min(ends) - pad, max(ends) + pad
    score = points[0].score
    axes.set_ylim(*(limits if score.higher_is_better else limits[::-1]))
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    if score.fraction:
        low, high = score.limits
        axes.yaxis.set_major_formatter(
            FuncFormatter(lambda y, _: f"{100 * y:.4g}" if low <= y <= high else "")
        )


def _draw(axes: Axes, point: _Point, marker: str, *, on_front: bool, gid: str) -> None:
    color, alpha = (svg.ACCENT, 0.9) if on_front else (svg.INK, 0.45)
    if point.score.ci95:
        ends = [point.cost, point.cost]
        axes.plot(ends, point.score.ci95, color=color, alpha=alpha, lw=1.5, solid_capstyle="round")
    if point.tail > point.cost:
        ends = [point.cost, point.tail]
        axes.plot(ends, [point.score.value] * 2, color=color, alpha=0.45, lw=1)
    axes.plot(
        [point.cost],
        [point.score.value],
        marker=marker,
        linestyle="none",
        markersize=8.5,
        markerfacecolor=svg.ACCENT if on_front else svg.PAPER,
        markeredgecolor=svg.PAPER if on_front else svg.INK,
        markeredgewidth=1.2,
        zorder=4,
        gid=gid,
    )


def _caption(points: Sequence[_Point], quality: str) -> str:
    caption = f"Up and to the left is better. The line is the best {quality} at each cost; hollow"
    caption += " points are beaten by another."
    if any(point.score.ci95 for point in points):
        caption += f" Upright bars: 95 % interval of the {quality}."
    if any(point.tail > point.cost for point in points):
        caption += " Bars to the right: up to the 95th percentile of the latency."
    return caption
