"""The loss of each stage while it trained."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from kdjax.report import svg, units
from kdjax.report.label_placement import spread
from kdjax.report.pictures import Picture, log_axis
from kdjax.report.units import Number

_MOST_POINTS = 240  # about one for each pixel
_MOST_TERMS = 4


def thin(values: Float[np.ndarray, " n"], most: int) -> Float[np.ndarray, "3 m"]:
    """Mean, least and most of at most `most` equal groups of neighbours."""
    groups = np.array_split(values, min(most, values.size))
    return np.array([[f(group) for group in groups] for f in (np.mean, np.min, np.max)])


def _runs(records: Sequence[Mapping[str, Number]], name: str):
    """`(steps, values)` of each run: the steps of one run rise, so a fall starts the next."""
    runs: list[tuple[list[float], list[float]]] = []
    last = math.inf
    for record in records:
        if record.get(name) is None:
            continue
        if record["step"] < last:
            runs.append(([], []))
        last = record["step"]
        runs[-1][0].append(float(last))
        runs[-1][1].append(float(record[name]))
    return [(np.array(steps), np.array(values)) for steps, values in runs]


def _drawn(records: Sequence[Mapping[str, Number]], name: str):
    """Each run thinned to what a chart can show: `(steps, mean, least, most)`."""
    found = []
    for steps, values in _runs(records, name):
        finite = np.isfinite(values)
        if finite.any():
            at = thin(steps[finite], _MOST_POINTS)[0]
            found.append((at, *thin(values[finite], _MOST_POINTS)))
    return found


@svg.drawing()
def loss_curve(stage: str, records: Sequence[Mapping[str, Number]], *, name: str) -> Picture | None:
    """Loss over steps, logarithmic where it is positive; `None` if no finite loss was logged.

    Terms of the loss (`"loss/kd"`, ...) are drawn beside the total if there are several.

    Args:
      stage: its name, the title.
      records: `{"step": int, "loss": float, ...}` in the order of logging; several runs one
        after the other.
      name: prefix of the ids in the picture.
    """
    total = _drawn(records, "loss")
    if not total:
        return None
    terms = [key for key in dict.fromkeys(k for r in records for k in r) if key.startswith("loss/")]
    terms = {key.removeprefix("loss/"): _drawn(records, key) for key in terms}
    terms = {key: lines for key, lines in terms.items() if lines}
    left_out = max(0, len(terms) - _MOST_TERMS) if len(terms) > 1 else 0
    terms = dict(list(terms.items())[:_MOST_TERMS]) if len(terms) > 1 else {}

    figure, axes = svg.canvas(320, 190)
    figure.subplots_adjust(left=0.14, right=0.8 if terms else 0.97, top=0.95, bottom=0.15)
    lines = {"loss": total, **terms}
    values = [run[row] for runs in lines.values() for run in runs for row in (2, 3)]
    low, high = (float(f(np.concatenate(values))) for f in (np.min, np.max))
    logarithmic = low > 0 and high > low
    if logarithmic:
        axes.set_yscale("log")

    colors = [svg.ACCENT, svg.SECOND, svg.THIRD, svg.FOURTH, svg.INK]
    ends = []
    for (key, runs), color in reversed(list(zip(lines.items(), colors, strict=False))):
        for at, mean, least, most in runs:
            if (most > least).any():
                axes.fill_between(at, least, most, color=color, alpha=0.16, linewidth=0)
            one = {"marker": "o", "markersize": 4} if at.size == 1 else {}
            strong = key == "loss"
            axes.plot(at, mean, color=color, lw=1.5 if strong else 1.1, zorder=3 + strong, **one)
        ends.append((key, color, float(runs[-1][0][-1]), float(runs[-1][1][-1])))
    if logarithmic:
        pad = (high / low) ** 0.04
        axes.set_ylim(low / pad, high * pad)
        log_axis(axes.yaxis, low / pad, high * pad, lambda value: f"{value:.3g}")
    else:
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda step, _: units.tick(step)))
    if terms:
        _name_ends(axes, ends)
    return Picture(
        stage,
        svg.inline(figure, name=name, label=f"Loss of {stage} over training steps", titles={}),
        _caption(records, left_out, logarithmic),
    )


def _name_ends(axes: Axes, ends: Sequence[tuple[str, str, float, float]]) -> None:
    """The name of each line at its right end."""
    heights = [float(axes.transData.transform((x, y))[1]) for _, _, x, y in ends]
    frame = axes.get_window_extent()
    right = axes.transAxes.inverted().transform((frame.x1 + 4, 0))[0]
    for (key, color, _, _), height in zip(
        ends, spread(heights, 13.0, frame.y0 + 4, frame.y1 - 4), strict=True
    ):
        y = axes.transAxes.inverted().transform((0, height))[1]
        text = svg.clean(key, 9)
        axes.text(right, y, text, color=color, va="center", transform=axes.transAxes)


def _caption(records: Sequence[Mapping[str, Number]], left_out: int, logarithmic: bool) -> str:
    runs = _runs(records, "loss")
    values = np.concatenate([values for _, values in runs])
    steps, last = runs[-1]
    text = f"{last[0]:.3g} → {last[-1]:.3g} at step {steps[-1]:,.0f}"
    parts = [text if len(runs) == 1 else f"{len(runs)} runs, the last {text}"]
    if lost := int((~np.isfinite(values)).sum()):
        parts.append(f"{units.count(lost, 'value')} not finite, not drawn")
    if left_out:
        parts.append(f"{units.count(left_out, 'term')} of the loss not drawn")
    if not logarithmic:
        parts.append("linear scale")
    return "; ".join(parts)
