"""What a compressed network is worth, in lines: from the report of its run."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from kdjax.report import Row, Score, title, units
from kdjax.report.rows import gain

_NEAR = 0.02
"""Of the accuracy: a student this near its teacher has learned what there was to learn."""


def lines(
    rows: Sequence[Row],
    *,
    labels_a_class: float,
    wanted_bytes: float | None,
    wanted_ms: float | None,
) -> list[str]:
    """The result, whether it is in the budget, and what it is worth beside the labels alone.

    Args:
      rows: of the report.
      labels_a_class: how many there are on average; 0 without labels.
      wanted_bytes: the most that the file may have, None for any.
      wanted_ms: the most that a call with one picture may take, likewise.
    """
    by = {row.stage: row for row in rows}
    file = next(row for row in rows if row.stage == "int8.onnx")
    teacher = by["teacher"]
    found = [
        f"{units.compact(file.bytes_on_disk, 'B')}, {units.milliseconds(file.latency_ms_p50)} a picture "
        f"({units.count(file.threads or 1, 'thread')}), {_score(file)}",
        f"the network it learned from: {units.compact(4 * teacher.params, 'B')} of parameters, "
        f"{_score(teacher)}",
    ]
    for what, most, own, unit in (
        ("size", wanted_bytes, file.bytes_on_disk, "B"),
        ("time", wanted_ms, file.latency_ms_p50, "ms"),
    ):
        if most is not None and own is not None:
            word = "within" if own <= most else "OVER"
            shown = units.compact(most, "B") if unit == "B" else units.milliseconds(most)
            found.append(f"{word} the budget of {shown} ({what})")
    if labels_a_class:
        found += _beside_labels(by, labels_a_class)
    return found


def _beside_labels(by: Mapping[str, Row], labels_a_class: float) -> list[str]:
    """The student against the same network on the labels alone; the last line says which is better."""
    student, scratch, teacher = by["student"], by["scratch"], by["teacher"]
    mine, theirs, taught = (row.score for row in (student, scratch, teacher))
    between = gain(student, scratch)
    if between is None or mine is None or theirs is None or taught is None:
        return []
    if mine.value < taught.value - _NEAR:
        advice = (
            f"the student is {units.points(mine.value - taught.value)} from its teacher: more "
            "pictures (they need no label), more minutes, or a larger budget help most"
        )
    else:
        advice = (
            f"the student has what its teacher has: with {labels_a_class:.3g} labels a class, more "
            "labels help most"
        )
    low, high = between.ci95
    if low > 0:
        verdict = "better: learning from the network is"
    elif high < 0:
        verdict = "better: training on the labels alone is"
    else:
        verdict = "no difference that these test pictures can tell:"
    ends = " to ".join(mine.change(end) for end in (low, high))
    return [
        advice,
        f"{verdict} {mine.shown} against {theirs.shown} of the same student on the labels alone, "
        f"{mine.change(between.difference)} (95% interval {ends})",
    ]


def _score(row: Row) -> str:
    score = row.score
    return "not measured" if score is None else f"{title(row.primary or '')} {score.shown}"


def rows_of(text: str) -> list[Row]:
    """Those of a report.json."""
    found = []
    for row in json.loads(text)["rows"]:
        scores = {name: _read(score) for name, score in row["scores"].items()}
        found.append(Row(**{**row, "scores": scores}))
    return found


def _read(said: Mapping[str, Any]) -> Score:
    pairs = {name: tuple(said[name]) for name in ("ci95", "per_seed") if said[name] is not None}
    return Score(**{**said, **pairs})
