"""The rows as an HTML table; each column carries its own explanation."""

import html
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from kdjax.report import scores, units
from kdjax.report.headline import settings, settings_text
from kdjax.report.rows import Row


class Column(NamedTuple):
    """One column: what it says of each row, and what a reader must know to trust it."""

    group: str
    name: str
    unit: str
    meaning: str
    values: tuple[Any, ...]
    cells: tuple[str, ...]  # HTML
    best: units.Number | None = None
    drawn: bool = False


def _number(values, group, name, unit, meaning, *, show, best=None) -> Column:
    known = [value for value in values if value is not None]
    # One row, or all alike: nothing is best.
    best = best(known) if best and len(set(known)) > 1 else None
    cells = tuple(html.escape(show(value)) for value in values)
    return Column(group, name, unit, meaning, tuple(values), cells, best)


def _amount(values, group, name, unit, meaning, *, beside=(), best=None) -> Column:
    """Amounts in one SI unit, the same as that of the column `beside` it."""
    scale, letter = units.prefix([*values, *beside])
    small = min((value / scale for value in [*values, *beside] if value), default=0)
    places = 1 if scale > 1 and small < 100 else 0

    def show(value):
        return units.fixed(None if value is None else value / scale, places)

    unit = f"{letter}{unit}" if unit else _COUNTS[letter]
    return _number(values, group, name, unit, meaning, show=show, best=best)


_COUNTS = {"": "", "k": "thousands", "M": "millions", "G": "billions", "T": "trillions"}


def _milliseconds(values, name, meaning, *, comparable: bool) -> Column:
    places = units.decimals(values, most=3)
    return _number(
        values,
        "Latency",
        name,
        "ms",
        meaning,
        show=lambda value: units.fixed(value, places),
        best=min if comparable else None,
    )


def _real_time(values, *, comparable: bool) -> list[Column]:
    """None where nothing that was timed is of time."""
    if all(value is None for value in values):
        return []
    places = units.decimals(values, most=6)
    return [
        _number(
            values,
            "Latency",
            _REAL_TIME,
            "s a second",
            _REAL_TIME_FACTOR,
            show=lambda value: units.fixed(value, places),
            best=min if comparable else None,
        )
    ]


def _text(values, group, name, unit, meaning) -> Column:
    cells = tuple(units.DASH if v is None else html.escape(str(v)) for v in values)
    return Column(group, name, unit, meaning, tuple(values), cells)


def breakable(text: str) -> str:
    """Escaped, and free to break after the joints of a long name."""
    return re.sub(r"([_/.])(?=\w)", r"\1<wbr>", html.escape(text))


def columns(rows: Sequence[Row]) -> list[Column]:
    """The columns of the table, left to right, the row's own name not among them."""

    def every(field):
        return [getattr(row, field) for row in rows]

    def some(field):
        """None for nothing: where the pixels are judged, there is no model to compare sizes with."""
        return [value or None for value in every(field)]

    timed = {settings(row) for row in rows if row.latency_ms_p50 is not None}
    alike = {"comparable": len(timed) == 1}
    params, nonzero = some("params"), some("nonzero_params")
    found = [
        _amount(params, "Size", "parameters", "", _PARAMS, best=min, beside=nonzero),
        _amount(nonzero, "Size", "not zero", "", _NONZERO, best=min, beside=params),
        _amount(every("bytes_on_disk"), "Size", "on disk", "B", _BYTES, best=min),
        _amount(every("peak_memory_bytes"), "Size", "memory", "B", _MEMORY, best=min),
        _amount(some("flops"), "Size", "compute", "FLOP", _FLOPS, best=min),
        *_scores(rows),
        _text(every("seeds"), "Quality", "seeds", "", _SEEDS),
        _milliseconds(every("latency_ms_p50"), "median", _P50, **alike),
        _milliseconds(every("latency_ms_p95"), "p95", _P95, **alike),
        *_real_time(every("real_time_factor"), **alike),
        _text(every("runtime"), "Latency", "runtime", "threads, batch", _RUNTIME),
    ]
    pruned = [
        "" if row.sparsity is None else f"<small>{units.share(row.sparsity)} pruned</small>"
        for row in rows
    ]
    setting = [
        f"<small>{settings_text(settings(row))}</small>" if any(settings(row)) else ""
        for row in rows
    ]
    zipped = [
        ""
        if row.gzip_bytes is None
        else f"<small>{units.compact(row.gzip_bytes, 'B')} gzip’d</small>"
        for row in rows
    ]
    bulk = [
        ""
        if row.bulk_ms_p50 is None
        else f"<small>{units.milliseconds(row.bulk_ms_p50)} for&nbsp;{row.bulk_batch}</small>"
        for row in rows
    ]
    lasting = [
        "" if row.seconds is None else f"<small>of {row.seconds:.3g}&nbsp;s</small>" for row in rows
    ]
    below = {
        "not zero": pruned,
        "on disk": zipped,
        "median": bulk,
        _REAL_TIME: lasting,
        "runtime": setting,
    }
    return [_below(c, below[c.name]) if c.name in below else c for c in found]


def _below(column: Column, lines: Sequence[str]) -> Column:
    """The column with a second line in each cell."""
    cells = tuple(cell + line for cell, line in zip(column.cells, lines, strict=True))
    return column._replace(cells=cells)


def _scores(rows: Sequence[Row]) -> list[Column]:
    """Those by which models are compared with their intervals, then all others."""
    names = dict.fromkeys(name for row in rows for name in row.scores)
    primary = list(dict.fromkeys(row.primary for row in rows if row.primary is not None))
    found = [_compared(rows, name) for name in primary or ["accuracy"]]
    for name in names:
        if name in primary:
            continue
        of_rows = [row.scores.get(name) for row in rows]
        known = next(score for score in of_rows if score is not None)
        values = [None if score is None else score.value for score in of_rows]
        places = units.decimals(values, most=4)
        found.append(
            _number(
                values,
                "Quality",
                scores.title(name),
                "%" if known.fraction else "",
                scores.meaning(name),
                show=units.percent
                if known.fraction
                else lambda value, places=places: units.fixed(value, places),
                best=max if known.higher_is_better else min,
            )
        )
    return found


def _compared(rows: Sequence[Row], name: str) -> Column:
    """A score with its interval, drawn; the rows of another one have none."""
    of_rows = [row.scores.get(name) if row.primary == name else None for row in rows]
    known = [score for score in of_rows if score is not None]
    fraction = all(score.fraction for score in known)
    ends = [end for score in known for end in (*(score.ci95 or ()), *score.each)]
    ends += [score.value for score in known]
    low, high = min(ends, default=0.0), max(ends, default=1.0)
    span = max(high - low, 1e-3)

    def x(value):
        return f"{4 + 72 * (value - low) / span:.1f}"

    cells = []
    for score in of_rows:
        if score is None:
            cells.append(units.DASH)
            continue
        marks = []
        if score.ci95 is not None:
            a, b = map(x, score.ci95)
            marks.append(f'<line x1="{a}" x2="{b}" y1="8" y2="8"/>')
        for a in map(x, score.per_seed or ()):
            marks.append(f'<line class="seed" x1="{a}" x2="{a}" y1="4" y2="12"/>')
        marks.append(f'<circle cx="{x(score.value)}" cy="8" r="3"/>')
        interval = "no interval" if score.ci95 is None else score.interval
        shown = units.percent(score.value) if score.fraction else score.shown
        cells.append(
            f"{shown}<small>{interval}</small>"
            f'<svg class="whisker" viewBox="0 0 80 16" aria-hidden="true">{"".join(marks)}</svg>'
        )
    values = tuple(None if score is None else score.value for score in of_rows)
    worth = {score.value: score.worth for score in known}
    best = max(worth, key=lambda value: worth[value]) if len(worth) > 1 else None
    unit = "%, 95 % interval" if fraction else "95 % interval"
    column = Column(
        "Quality", scores.title(name), unit, scores.meaning(name), values, tuple(cells), best
    )
    return column._replace(drawn=True)


def table(rows: Sequence[Row], found: Sequence[Column]) -> str:
    """`<table>` of the columns that hold anything."""
    shown = [column for column in found if any(value is not None for value in column.values)]
    groups = [(g, sum(c.group == g for c in shown)) for g in dict.fromkeys(c.group for c in shown)]
    starts = {next(i for i, c in enumerate(shown) if c.group == g) for g, _ in groups}
    head = "".join(f'<th colspan="{n}" scope="colgroup">{g}</th>' for g, n in groups)
    names = "".join(
        f'<th scope="col"{_class(c, i in starts)}>{c.name}<small>{c.unit or "&nbsp;"}</small></th>'
        for i, c in enumerate(shown)
    )
    body = []
    for k, row in enumerate(rows):
        cells = "".join(
            f"<td{_class(c, i in starts, k)}>{c.cells[k]}</td>" for i, c in enumerate(shown)
        )
        model = f"<small>{breakable(row.model)}</small>" if row.model != row.stage else ""
        notes = f'<small class="remark">{html.escape(row.notes)}</small>' if row.notes else ""
        body.append(f'<tr><th scope="row">{breakable(row.stage)}{model}{notes}</th>{cells}</tr>')
    return (
        '<table><thead><tr><th rowspan="2" scope="col">Stage<small>model</small></th>'
        f"{head}</tr><tr>{names}</tr></thead><tbody>{''.join(body)}</tbody></table>"
    )


def _class(column: Column, start: bool, row: int | None = None) -> str:
    names = ["start"] * start
    names += ["text"] * (column.name == "runtime") + ["acc"] * column.drawn
    if row is not None and column.values[row] is None:
        names.append("none")
    elif row is not None and column.best is not None and column.values[row] == column.best:
        names.append("best")
    return f' class="{" ".join(names)}"' if names else ""


def legend(found: Sequence[Column]) -> str:
    """What each column means and how it was measured, as a `<dl>`."""
    items = "".join(
        f"<div><dt>{c.name if c.group != 'Latency' else f'latency: {c.name}'}"
        f"{f' <small>{c.unit}</small>' if c.unit else ''}</dt><dd>{c.meaning}</dd></div>"
        for c in found
    )
    return f'<dl class="legend">{items}</dl>'


def unmeasured(found: Sequence[Column]) -> list[str]:
    """Names of the columns that no row could fill."""
    return [
        f"{c.name} latency" if c.name in ("median", "p95") else c.name
        for c in found
        if all(value is None for value in c.values)
    ]


_PARAMS = (
    "Scalars in the model's parameters, after any shrinking. Running statistics of normalisation"
    " layers are not counted. Over several seeds: the mean, rounded."
)
_NONZERO = (
    "Parameters that are not exactly zero. “Pruned” is the share of the prunable weights that a"
    " mask holds at zero; biases and normalisation are usually not prunable."
)
_BYTES = (
    "Size of the exported file; of the stored parameters where nothing was exported. k, M and G"
    " are powers of 1000. Below it the size after gzip, which is less where many weights are zero."
)
_MEMORY = (
    "By how much the resident memory of a process rises at most that loads the file and runs one"
    " batch, its runtime imported before."
)
_FLOPS = (
    "Floating-point operations for one example: two for each multiply-accumulate of the"
    " convolution and dense layers, worked out from their shapes. Zeros are counted too, so a mask"
    " alone does not lower it."
)
_SEEDS = "Independent training runs behind the row; figures are their means, latencies medians."
_P50 = (
    "Half of the timed calls took no longer than this, wall time, after warming up. Below it the"
    " same of one call with many examples."
)
_REAL_TIME = "real-time factor"
_REAL_TIME_FACTOR = (
    "Seconds of processing a second of sound: the median call over how long the examples of one call"
    " last together, which is below it. They are the longest test examples; what they are padded with"
    " is processed, and does not count as sound."
)
_P95 = "95 % of the timed calls took no longer than this."
_RUNTIME = (
    "What loaded the model and ran it for the timing; below it the CPU threads it was given and the"
    " examples in one call. The latency is that of the whole call."
)
