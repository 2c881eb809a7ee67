"""Accuracy against cost, with the front of the models worth having."""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from kdjax.report import svg, units
from kdjax.report.headline import settings, settings_text
from kdjax.report.pareto import pareto_front
from kdjax.report.placing import name_points
from kdjax.report.rows import Row, labels

_MARKERS = (("o", "●"), ("s", "■"), ("^", "▲"), ("D", "◆"), ("v", "▼"), ("P", "✚"))
_STEPS = ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7), tuple(i / 10 for i in range(10, 100)))


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


def log_axis(axis, low: float, high: float, show: Callable[[float], str]) -> None:
    """Round ticks, named by `show`, on an axis that is logarithmic already."""
    axis.set_major_locator(FixedLocator(log_ticks(low, high)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: show(value)))


def accuracy_versus_size(rows: Sequence[Row]) -> Picture | None:
    """Accuracy against bytes on disk; `None` with fewer than two such rows."""
    shown = [i for i, row in enumerate(rows) if row.accuracy is not None and row.bytes_on_disk]
    if len(shown) < 2:
        return None
    return _tradeoff(
        rows,
        shown,
        [row.bytes_on_disk for row in rows],
        show=lambda value: units.tick(value, "B"),
        title="Accuracy and size",
        axis="size on disk, log scale",
        name="size",
    )


def accuracy_versus_latency(rows: Sequence[Row]) -> list[Picture]:
    """Accuracy against median latency, one picture for each setting that can be compared."""
    timed = [i for i, row in enumerate(rows) if row.accuracy is not None and row.latency_ms_p50]
    pictures = []
    for setting in dict.fromkeys(settings(rows[i]) for i in timed):
        shown = [i for i in timed if settings(rows[i]) == setting]
        if len(shown) < 2:
            continue
        known = settings_text(setting)
        picture = _tradeoff(
            rows,
            shown,
            [row.latency_ms_p50 for row in rows],
            tails=[row.latency_ms_p95 for row in rows],
            show=lambda value: f"{value:g} ms",
            title="Accuracy and latency" + (f": {known}" if known else ""),
            axis="median latency of one call, log scale",
            name=f"latency{len(pictures)}",
        )
        pictures.append(picture)
    return pictures


@svg.drawing()
def _tradeoff(
    rows: Sequence[Row],
    shown: Sequence[int],
    costs: Sequence[float | None],
    *,
    show: Callable[[float], str],
    title: str,
    axis: str,
    name: str,
    tails: Sequence[float | None] | None = None,
) -> Picture:
    """The rows `shown` as points; `tails` are ends of thin bars to the right of the points."""
    figure, axes = svg.canvas(440, 310)
    figure.subplots_adjust(left=0.09, right=0.985, top=0.92, bottom=0.145)
    names = labels(rows)
    xs, ys = [costs[i] for i in shown], [rows[i].accuracy for i in shown]
    bars = [rows[i].accuracy_ci95 or (rows[i].accuracy,) * 2 for i in shown]
    ends = [(tails[i] if tails else None) or costs[i] for i in shown]
    front = pareto_front(xs, ys)

    axes.set_xscale("log")
    ratio = max(max(ends) / min(xs), 1.5)
    left, right = min(xs) / ratio**0.09, max(ends) * ratio**0.17
    axes.set_xlim(left, right)
    low, high = min(bar[0] for bar in bars), max(bar[1] for bar in bars)
    span = max(high - low, 0.01)
    axes.set_ylim(low - 0.08 * span, high + 0.08 * span)
    log_axis(axes.xaxis, left, right, show)
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{100 * y:.4g}" if y <= 1 else ""))
    axes.set_xlabel(axis, color=svg.INK, alpha=0.75, loc="right", labelpad=5)
    axes.set_title("accuracy, %", color=svg.INK, alpha=0.75, loc="left", x=-0.075, fontsize=11)

    stairs_x = [xs[i] for i in front] + [right]
    stairs_y = [ys[i] for i in front] + [ys[front[-1]]]
    axes.step(stairs_x, stairs_y, where="post", color=svg.ACCENT, alpha=0.55, linewidth=1.6)

    stairs = list(zip(stairs_x, stairs_y, strict=True))
    obstacles = [(x, y, x1, y) for (x, y), (x1, _) in itertools.pairwise(stairs)]
    obstacles += [(x, y, x, y1) for (_, y), (x, y1) in itertools.pairwise(stairs)]

    runtimes = list(dict.fromkeys(rows[i].runtime for i in shown))
    titles = {}
    for k, i in enumerate(shown):
        strong = k in front
        ink = {"color": svg.ACCENT if strong else svg.INK, "alpha": 0.9 if strong else 0.45}
        axes.plot([xs[k]] * 2, bars[k], linewidth=1.5, solid_capstyle="round", **ink)
        axes.plot([xs[k], ends[k]], [ys[k]] * 2, linewidth=1, **{**ink, "alpha": 0.45})
        obstacles += [(xs[k], bars[k][0], xs[k], bars[k][1]), (xs[k], ys[k], ends[k], ys[k])]
        axes.plot(
            xs[k],
            ys[k],
            marker=_MARKERS[runtimes.index(rows[i].runtime) % len(_MARKERS)][0],
            markersize=8.5,
            markerfacecolor=svg.ACCENT if strong else svg.PAPER,
            markeredgecolor=svg.PAPER if strong else svg.INK,
            markeredgewidth=1.2,
            zorder=4,
            gid=f"point{k}",
        )
        accuracy = units.share(rows[i].accuracy)
        if rows[i].accuracy_ci95 is not None:
            accuracy += f" (95 % interval {units.interval(rows[i].accuracy_ci95)})"
        titles[f"point{k}"] = f"{names[i]}: {accuracy}, {show(xs[k])}"
    name_points(
        axes,
        xs,
        ys,
        [svg.clean(names[i], 24) for i in shown],
        obstacles=obstacles,
        strong=[k in front for k in range(len(shown))],
    )

    caption = "Up and to the left is better. The line is the best accuracy at each cost; hollow"
    caption += " points are beaten in both. Upright bars: 95 % interval of the accuracy."
    if any(end > x for x, end in zip(xs, ends, strict=True)):
        caption += " Bars to the right: up to the 95th percentile of the latency."
    legend = tuple(
        f"{_MARKERS[k % len(_MARKERS)][1]} {runtime or 'not exported'}"
        for k, runtime in enumerate(runtimes)
    )
    return Picture(
        title,
        svg.inline(
            figure, name=name, label=f"{title}: {'; '.join(titles.values())}", titles=titles
        ),
        caption,
        legend if len(legend) > 1 else (),
    )
