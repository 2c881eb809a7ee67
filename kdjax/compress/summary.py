"""What a compressed network is worth, in lines: from the report of its run."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from kdjax import config
from kdjax.config.sources import Pictures
from kdjax.files import from_json
from kdjax.report import Row, row_of, title, units
from kdjax.report.rows import gain

_NEAR = 0.02
"""Of the accuracy: a student this near its teacher has learned what there was to learn."""

_METHODS = {
    "nearest": "NEAREST",
    "bilinear": "BILINEAR",
    "bicubic": "BICUBIC",
    "lanczos": "LANCZOS",
    "box": "BOX",
    "hamming": "HAMMING",
}


class Result(NamedTuple):
    """What came of it.

    Attributes:
      lines: of the file, the first, and of the network that it is from.
      verdict: whether it was worth it, against the labels alone; empty without labels.
      over: by what the budget was missed; empty where it was not.
    """

    lines: list[str]
    verdict: str
    over: str


def result(
    rows: Sequence[Row], *, labels_a_class: float, most_bytes: float | None, most_ms: float | None
) -> Result:
    """The result of a run of `kdjax compress`.

    Args:
      rows: of the report.
      labels_a_class: how many there are on average; 0 without labels.
      most_bytes: that the file may have, None for any.
      most_ms: milliseconds that a call with one picture may take, likewise.
    """
    by = {row.stage: row for row in rows}
    file, teacher = by["int8.onnx"], by["teacher"]
    assert file.bytes_on_disk is not None
    assert file.latency_ms_p50 is not None
    time = units.milliseconds(file.latency_ms_p50)
    lines = [
        f"{units.compact(file.bytes_on_disk, 'B')}, {time} a picture in ONNX Runtime "
        f"({units.count(file.threads or 1, 'thread')}), {_scored(file)}",
        f"the network that it learned from: {units.compact(4 * teacher.params, 'B')} of parameters, "
        f"{_scored(teacher)}",
    ]
    over = ""
    if most_bytes is not None and file.bytes_on_disk > most_bytes:
        over = f"{file.bytes_on_disk:,} bytes of {most_bytes:,.0f}"
    if most_ms is not None and file.latency_ms_p50 > most_ms:
        over = f"{time} of {units.milliseconds(most_ms)}{_in_float(by.get('small.onnx'), most_ms)}"
    if not labels_a_class:
        return Result(lines, "", over)
    advice, verdict = _beside_labels(by, labels_a_class)
    return Result([*lines, *advice], verdict, over)


def _in_float(row: Row | None, most_ms: float) -> str:
    """Whether the same student is within the budget as floats: a small one may be no faster in int8."""
    if row is None or row.latency_ms_p50 is None or row.latency_ms_p50 > most_ms:
        return ""
    assert row.bytes_on_disk is not None
    size, time = units.compact(row.bytes_on_disk, "B"), units.milliseconds(row.latency_ms_p50)
    return f"; {row.stage}, the same student in float32, takes {time}, with {size} (see the report)"


def _beside_labels(by: Mapping[str, Row], labels_a_class: float) -> tuple[list[str], str]:
    """What would help most, and the student against the same network on the labels alone."""
    student, scratch, teacher = by["student"], by["scratch"], by["teacher"]
    mine, theirs, taught = (row.score for row in (student, scratch, teacher))
    between = gain(student, scratch)
    if between is None or mine is None or theirs is None or taught is None:
        return [], ""
    if mine.value < taught.value - _NEAR:
        advice = (
            f"the student is {100 * (taught.value - mine.value):.1f} points below its teacher: more "
            "pictures (they need no labels), more --minutes or a larger --budget would help most"
        )
    else:
        advice = (
            f"the student is as good as its teacher: with {labels_a_class:.3g} labels a class, more "
            "labels would help most"
        )
    low, high = between.ci95
    which = "no difference that these test pictures can tell"
    if low > 0:
        which = "learning from the network is better"
    elif high < 0:
        which = "training on the labels alone is better"
    ends = " to ".join(mine.change(end) for end in (low, high))
    return [advice], (
        f"{which}: {mine.shown} against {theirs.shown} of the same student on the labels alone, "
        f"{mine.change(between.difference)} (95% interval {ends})"
    )


def _scored(row: Row) -> str:
    if row.score is None:
        return "not measured"
    of = " with the network's answers" if row.primary == "agreement" else ""
    return f"{title(row.primary or '')}{of} {row.score.shown}"


def rows_of(text: str) -> list[Row]:
    """Those of a report.json."""
    return [row_of(said, "report.json: rows") for said in from_json(text)["rows"]]


def opened(source: config.Source | None, shape: tuple[int, ...]) -> str:
    """An expression that gives a picture in the frame of a source, with Pillow alone."""
    if not isinstance(source, Pictures):
        return f"np.zeros({shape}, np.uint8)  # a picture of yours"
    mode = "L" if source.channels == 1 else "RGB"
    size = f"({shape[1]}, {shape[0]}), Image.{_METHODS[source.interpolation]}"
    flat = f'ImageOps.exif_transpose(Image.open("picture.jpg")).convert("{mode}")'
    match source.resize:
        case "squash":
            return f"{flat}.resize({size})"
        case "pad":
            return f"ImageOps.pad({flat}, {size})"
    bleed = (1 - source.crop) / 2
    return f"ImageOps.fit({flat}, {size}{f', {bleed:g}' if bleed else ''})"
