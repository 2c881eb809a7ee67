"""One measured model is one row; the same model over several seeds is one row too."""

import dataclasses
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
from etils import epy
from jaxtyping import Float, Integer

from kdjax import parse
from kdjax.report.scores import Score

with epy.lazy_imports():  # slow to import, and intervals come last
    from scipy import special

_Value = TypeVar("_Value")
_AMOUNTS = [
    "params",
    "nonzero_params",
    "bytes_on_disk",
    "flops",
    "seeds",
    "latency_ms_p50",
    "latency_ms_p95",
    "threads",
    "batch",
    "gzip_bytes",
    "peak_memory_bytes",
    "bulk_ms_p50",
    "bulk_ms_p95",
    "bulk_batch",
    "seconds",
    "real_time_factor",
]


@dataclasses.dataclass(frozen=True)
class Row:
    """What was measured of one model. `None` where nothing was measured, never a guess.

    Attributes:
      stage: name of the stage that made the model.
      model: name of its architecture.
      params: scalars in its parameters, after any shrinking; running statistics not counted.
      nonzero_params: those of them that are not exactly zero.
      bytes_on_disk: of the exported file; of the stored parameters if nothing was exported.
      flops: 2 x multiply-accumulates of the convolution and dense layers, for one example.
      scores: by name, as the task of the model has them; none where nothing was measured.
      primary: name of the one that models are compared by, None where there is none.
      seeds: number of runs behind the row.
      latency_ms_p50: median wall time of one call, milliseconds.
      latency_ms_p95: 95th percentile of it, milliseconds.
      runtime: what ran the latency measurement and the exported file.
      threads: CPU threads it was given.
      batch: examples in one call.
      sparsity: fraction of the prunable weights that was pruned; `None` unless pruned.
      notes: one line for the reader.
      gzip_bytes: of the exported file after gzip: what zeros save where they are stored as zeros.
      peak_memory_bytes: by which a process grows that loads the file and runs `batch` examples.
      bulk_ms_p50, bulk_ms_p95: of one call with many examples, otherwise as above.
      bulk_batch: how many.
      seconds: how long the examples of one call last together, where they are of time, as sound is.
      real_time_factor: seconds of processing a second of that: the median call over `seconds`.

    Raises:
      ValueError: a fraction outside [0, 1], an amount below 0, or NaN, named by its field.
    """

    stage: str
    model: str
    params: int
    nonzero_params: int
    bytes_on_disk: int | None
    flops: int | None
    scores: Mapping[str, Score]
    primary: str | None
    seeds: int
    latency_ms_p50: float | None
    latency_ms_p95: float | None
    runtime: str | None
    threads: int | None
    batch: int | None
    sparsity: float | None = None
    notes: str = ""
    gzip_bytes: int | None = None
    peak_memory_bytes: int | None = None
    bulk_ms_p50: float | None = None
    bulk_ms_p95: float | None = None
    bulk_batch: int | None = None
    seconds: float | None = None
    real_time_factor: float | None = None

    def __post_init__(self):
        if self.primary is not None and self.primary not in self.scores:
            raise ValueError(f"Row.primary of {self.stage!r}: there is no score {self.primary!r}")
        single = [("sparsity", self.sparsity, 0.0, 1.0)]
        single += [(n, getattr(self, n), 0.0, math.inf) for n in _AMOUNTS]
        for name, score in self.scores.items():
            every = (score.value, *(score.ci95 or ()), *(score.per_seed or ()))
            single += [(f"scores.{name}", value, *score.limits) for value in every]
        for name, value, low, high in single:
            if value is not None and not (low <= value <= high and math.isfinite(value)):
                want = {1.0: "a fraction from 0 to 1"}.get(
                    high, "finite" if low < 0 else "finite and not negative"
                )
                raise ValueError(
                    f"Row.{name} of {self.stage!r} is {value}: must be {want}, or None"
                )

    @property
    def score(self) -> Score | None:
        """The one that models are compared by."""
        return None if self.primary is None else self.scores[self.primary]


def row_of(said: Mapping[str, Any], path: str) -> Row:
    """A row as JSON has it; what is not said is unknown.

    Args:
      said: fields of `Row`.
      path: of it, for what is wrong.

    Raises:
      BadInput: it is none.
    """
    blank = {field.name: None for field in dataclasses.fields(Row)}
    return parse.parse(Row, {**blank, "notes": "", "scores": {}, **said}, path)


def wilson(correct_fraction: float, n: int) -> tuple[float, float]:
    """95 % Wilson score interval of an accuracy measured on `n` test examples.

    This is the uncertainty of the test set; the spread over training seeds is not in it.

    Args:
      correct_fraction: measured accuracy, 0 to 1.
      n: number of test examples, at least 1.

    Raises:
      ValueError: a fraction outside [0, 1] or an `n` below 1.

    Reference: Wilson 1927, https://doi.org/10.1080/01621459.1927.10502953.
    """
    if not 0 <= correct_fraction <= 1:
        raise ValueError(f"correct_fraction is {correct_fraction}: must be a fraction from 0 to 1")
    if n < 1:
        raise ValueError(f"n is {n}: must be at least 1 example")
    z = float(special.ndtri(0.975))
    centre = correct_fraction + z * z / (2 * n)
    spread = z * math.sqrt(correct_fraction * (1 - correct_fraction) / n + (z / (2 * n)) ** 2)
    scale = 1 + z * z / n
    # The exact interval holds the fraction; rounding must not push it out at 0 and 1.
    return (
        max(0.0, min((centre - spread) / scale, correct_fraction)),
        min(1.0, max((centre + spread) / scale, correct_fraction)),
    )


def mean_interval(values: Float[np.ndarray, " n"]) -> tuple[float, float] | None:
    """95 % interval of the mean of a figure of each test example: Student's t.

    None of a single example. This is the uncertainty of the test set; the spread over training seeds is
    not in it.
    """
    return _student_t(values.tolist()) if len(values) > 1 else None


def ratio_interval(
    counted: Integer[np.ndarray, " n"], of: Integer[np.ndarray, " n"], *, most: float = 1.0
) -> tuple[float, float] | None:
    """95 % interval of `counted.sum() / of.sum()`, a fraction of parts that examples have some of each.

    Parts of one example (the words of a sentence) are not independent of each other, so the spread is
    that of examples: Student's t of `counted - ratio * of`, over the mean of `of`. Where it is zero, all
    examples having the same fraction, it is Wilson's interval as if each had one part alone.

    Args:
      counted: parts of each example that count.
      of: its parts, at least one.
      most: that the ratio may be; what counts may be more than the parts, as errors of words are.

    Reference: Cochran 1977, Sampling Techniques, 3rd ed., ch. 6: the ratio estimator.
    """
    n, ratio = len(of), float(counted.sum() / of.sum())
    apart = counted - ratio * of
    if n < 2 or not apart.any():
        return wilson(ratio, n) if ratio <= 1.0 else None
    error = float(np.sqrt((apart**2).sum() / (n - 1) / n)) / float(of.mean())
    half = float(special.stdtrit(n - 1, 0.975)) * error
    return max(0.0, ratio - half), min(most, ratio + half)


def _student_t(values: Sequence[float]) -> tuple[float, float]:
    """95 % interval of the mean, `mean -+ t(0.975, n - 1) * sd / sqrt(n)`."""
    n = len(values)
    t = float(special.stdtrit(n - 1, 0.975))
    mean, half = statistics.fmean(values), t * statistics.stdev(values) / math.sqrt(n)
    return mean - half, mean + half


class Gain(NamedTuple):
    """How much better one model is than another.

    Attributes:
      difference: of their scores, turned so that above zero is better.
      ci95: its 95 % interval.
      seeds: pairs that it is over.
    """

    difference: float
    ci95: tuple[float, float]
    seeds: int


def gain(row: Row, base: Row) -> Gain | None:
    """The score of `row` over that of `base`; None where one of them, or its interval, is not known.

    Of several seeds, the Student t interval of the differences seed by seed. Of one, Newcombe's hybrid
    score interval from the two intervals of the test set: as if each model had been tested on examples
    of its own, which is the wider, since that the same were used is not known here.

    Reference: Newcombe 1998, https://doi.org/10.1002/(SICI)1097-0258(19980430)17:8%3C873::AID-SIM779%3E3.0.CO;2-I,
    method 10.
    """
    ours, theirs = row.score, base.score
    if ours is None or theirs is None or row.primary != base.primary:
        return None
    if (each := paired(row, base)) is not None:
        low, high = _student_t(each)
        if ours.limits == (0.0, 1.0):
            low, high = max(-1.0, low), min(1.0, high)
        return Gain(statistics.fmean(each), (low, high), len(each))
    if ours.ci95 is None or theirs.ci95 is None:
        return None
    difference = ours.value - theirs.value
    (low, high), (base_low, base_high) = ours.ci95, theirs.ci95
    below = math.hypot(ours.value - low, base_high - theirs.value)
    above = math.hypot(high - ours.value, theirs.value - base_low)
    ends = difference - below, difference + above
    if not ours.higher_is_better:
        difference, ends = -difference, (-ends[1], -ends[0])
    return Gain(difference, ends, min(row.seeds, base.seeds))


def paired(row: Row, base: Row) -> list[float] | None:
    """How much better `row` is seed by seed; None where there are not several of both."""
    ours, theirs = row.score, base.score
    if ours is None or theirs is None or row.primary != base.primary:
        return None
    if not len(ours.each) == len(theirs.each) > 1:
        return None
    sign = 1 if ours.higher_is_better else -1
    return [sign * (a - b) for a, b in zip(ours.each, theirs.each, strict=True)]


def is_file(row: Row) -> bool:
    """Whether it is an exported file that a runtime of its own runs, and not a model that XLA does.

    A model's checkpoint is compressed, a file is not: their sizes are not to be compared.
    """
    return row.runtime is not None and not row.runtime.startswith("xla")


def aggregate(rows: Sequence[Row]) -> Row:
    """One row for the same model trained with several seeds; a single row comes back as it is.

    Means: the scores that every seed has, `sparsity`; and, rounded to whole numbers because
    masks and compressed files differ a little from seed to seed, `params`, `nonzero_params`,
    `bytes_on_disk`, `gzip_bytes`, `peak_memory_bytes` and `flops`. A mean is `None` unless every
    seed has the figure. Latencies, and what is found of them, are medians over the seeds that measured
    them, so timing one seed is enough.
    The interval of a score is Student's t interval of the mean over seeds; of a fraction, within [0, 1].

    Args:
      rows: one row a seed, each with `seeds == 1` and the same stage, model, runtime, threads,
        batch and bulk batch (the last four may be `None` where a seed was not timed).

    Raises:
      ValueError: no rows, rows of different models, or rows that are aggregates already.
    """
    if not rows:
        raise ValueError("aggregate: needs at least one row")
    if len(rows) == 1:
        return rows[0]
    if any(row.seeds != 1 for row in rows):
        raise ValueError("aggregate: every row must be one seed")

    def same(name: str, values: Iterable[_Value | None]) -> _Value | None:
        found = {value for value in values if value is not None}
        if len(found) > 1:
            raise ValueError(f"aggregate: rows of different {name}: {sorted(map(str, found))}")
        return next(iter(found), None)

    same("stage", (row.stage for row in rows))
    same("model", (row.model for row in rows))
    found = {
        name: _over_seeds([row.scores[name] for row in rows])
        for name in rows[0].scores
        if all(name in row.scores for row in rows)
    }
    primary = same("primary score", (row.primary for row in rows))
    return Row(
        stage=rows[0].stage,
        model=rows[0].model,
        params=round(statistics.fmean(row.params for row in rows)),
        nonzero_params=round(statistics.fmean(row.nonzero_params for row in rows)),
        bytes_on_disk=_whole(_mean([row.bytes_on_disk for row in rows])),
        flops=_whole(_mean([row.flops for row in rows])),
        scores=found,
        primary=primary if primary in found else None,
        seeds=len(rows),
        latency_ms_p50=_median([row.latency_ms_p50 for row in rows]),
        latency_ms_p95=_median([row.latency_ms_p95 for row in rows]),
        runtime=same("runtime", (row.runtime for row in rows)),
        threads=same("threads", (row.threads for row in rows)),
        batch=same("batch", (row.batch for row in rows)),
        sparsity=_mean([row.sparsity for row in rows]),
        notes="; ".join(dict.fromkeys(row.notes for row in rows if row.notes)),
        gzip_bytes=_whole(_mean([row.gzip_bytes for row in rows])),
        peak_memory_bytes=_whole(_mean([row.peak_memory_bytes for row in rows])),
        bulk_ms_p50=_median([row.bulk_ms_p50 for row in rows]),
        bulk_ms_p95=_median([row.bulk_ms_p95 for row in rows]),
        bulk_batch=same("bulk_batch", (row.bulk_batch for row in rows)),
        seconds=_median([row.seconds for row in rows]),
        real_time_factor=_median([row.real_time_factor for row in rows]),
    )


def _over_seeds(scores: Sequence[Score]) -> Score:
    """The mean of one score, with its interval."""
    values = tuple(score.value for score in scores)
    low, high = _student_t(values)
    least, most = scores[0].limits
    low, high = max(least, low), min(most, high)
    mean = statistics.fmean(values)
    return dataclasses.replace(scores[0], value=mean, ci95=(low, high), per_seed=values)


def _mean(values: Sequence[float | int | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if len(known) == len(values) else None


def _whole(value: float | None) -> int | None:
    return None if value is None else round(value)


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(statistics.median(known)) if known else None


def labels(rows: Sequence[Row]) -> list[str]:
    """The shortest name that tells each row from the others: its stage, and more if it must."""
    parts = [
        [row.stage, row.model, row.runtime or "", f"batch {row.batch}", f"threads {row.threads}"]
        for row in rows
    ]
    found = [""] * len(rows)
    unnamed = range(len(rows))
    for size in range(1, 6):
        names = {i: " ".join(filter(None, parts[i][:size])) for i in unnamed}
        for i, name in names.items():
            found[i] = name
        unnamed = [i for i in unnamed if list(names.values()).count(names[i]) > 1]
    for i in unnamed:  # twins in everything a reader could name: their place in the table
        found[i] += f" #{i + 1}"
    return found
