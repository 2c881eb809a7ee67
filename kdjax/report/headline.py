"""What a reader should know first, worked out from measured rows only."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from kdjax.report import scores, units
from kdjax.report.rows import Gain, Row, gain, is_file, labels
from kdjax.report.scores import Score

PIXELS = "pixels"
"""The model of a row whose features are the pixels themselves."""

TFIDF = "TF-IDF"
"""The model of a row whose features are the words and pairs of words that occur."""

_YARDSTICKS = {
    PIXELS: "logistic regression on the pixels: look at the views",
    TFIDF: "logistic regression on TF-IDF: look at the teacher",
}
"""What everything else has to beat, and what to do where it does not."""

_WORTH_SAYING = 1.05  # a model 3 % smaller is not news

_COMPARABLE = 1e4
"""More times less arithmetic has only a network that looks its answer up, as a bag of embeddings does."""


class Claim(NamedTuple):
    """`value` in large type, `what` it is, and the `detail` that lets a reader check it."""

    value: str
    what: str
    detail: str
    is_warning: bool = False


class _Model(NamedTuple):
    """A row whose score is known, with its name on the page."""

    name: str
    score: Score
    row: Row

    @property
    def worth(self) -> float:
        """The higher, the better."""
        return self.score.worth


def settings(row: Row) -> tuple[int | None, int | None]:
    """Latencies can be compared only where these are equal: (threads, batch)."""
    return row.threads, row.batch


def settings_text(setting: tuple[int | None, int | None]) -> str:
    """`1 thread, batch 8`, leaving out what is not known."""
    threads, batch = setting
    known = [None if threads is None else units.count(threads, "thread")]
    known += [None if batch is None else f"batch {batch}"]
    return ", ".join(filter(None, known))


def within_tolerance(export: Mapping[str, Any]) -> bool | None:
    """Whether an export is as near its model as was asked; `None` if nothing was, or not measured."""
    asked = (
        ("max_difference", "tolerance", 1),
        ("agreement", "required_agreement", -1),
        ("accuracy_drop", "allowed_drop", 1),
    )
    found = [
        sign * export[figure] <= sign * export[bound]
        for figure, bound, sign in asked
        if export.get(figure) is not None and export.get(bound) is not None
    ]
    return all(found) if found else None


def headline(
    rows: Sequence[Row],
    parity: Sequence[Mapping[str, Any]] = (),
    twins: Sequence[tuple[str, str]] = (),
) -> list[Claim]:
    """The claims that the rows can carry, most important first; empty if there are none.

    Args:
      rows: of all models.
      parity: see `kdjax.report.write`.
      twins: see there.
    """
    models = [
        _Model(name, row.score, row)
        for name, row in zip(labels(rows), rows, strict=True)
        if row.score is not None and row.model not in _YARDSTICKS
    ]
    return [
        *_over_scratch(rows, twins),
        *_not_over_yardstick(rows, twins),
        *_largest_and_smallest(models),
        *_same_parameters(models),
        *_fastest(models),
        *_sparsest(models),
        *_exports(parity),
    ]


def _over_scratch(rows: Sequence[Row], twins: Sequence[tuple[str, str]]) -> list[Claim]:
    """What a student has of its teacher: the first pair of which both were measured."""
    live = {row.stage: row for row in rows if not is_file(row)}
    for student, scratch in twins:
        if student not in live or scratch not in live:
            continue
        found = gain(live[student], live[scratch])
        if found is None:
            continue
        low, high = found.ci95
        if low > 0:
            what = f"{student} over the same network trained on the labels alone ({scratch})"
        elif high < 0:
            what = (
                f"{student} is worse than the same network trained on the labels alone ({scratch}): "
                "train that one, or look at the teacher"
            )
        else:
            what = (
                f"{student} against the same network trained on the labels alone ({scratch}): no "
                "difference that this run can tell from chance"
            )
        ours, theirs = live[student].score, live[scratch].score
        assert ours is not None
        assert theirs is not None
        detail = f"{ours.shown} against {theirs.shown}; {_interval(found, ours)}"
        return [Claim(ours.change(found.difference), what, detail, is_warning=low <= 0)]
    return []


def _interval(found: Gain, score: Score) -> str:
    between = " to ".join(score.change(end) for end in found.ci95)
    return f"95\u00a0% interval {between}, {units.count(found.seeds, 'seed')}"


def _not_over_yardstick(rows: Sequence[Row], twins: Sequence[tuple[str, str]]) -> list[Claim]:
    """A warning where a linear classifier of the inputs themselves does as well as a student."""
    live = {row.stage: row for row in rows if not is_file(row)}
    plain = [row for row in rows if row.model in _YARDSTICKS and row.stage.endswith("/linear")]
    student = next((live[name] for name, _ in twins if name in live), None)
    if not plain or student is None:
        return []
    found = gain(student, plain[0])
    if found is None or found.ci95[0] > 0:
        return []
    against = "is worse than" if found.ci95[1] < 0 else "is no better, that this run can tell, than"
    ours, theirs = student.score, plain[0].score
    assert ours is not None
    assert theirs is not None
    detail = f"{ours.shown} against {theirs.shown} of {plain[0].stage}; {_interval(found, ours)}"
    what = f"{student.stage} {against} {_YARDSTICKS[plain[0].model]}"
    return [Claim(ours.change(found.difference), what, detail, is_warning=True)]


def _largest(models: Sequence[_Model]) -> _Model:
    """The yardstick: what the others are made to replace. Of equally large ones the better."""
    return max(models, key=lambda model: (model.row.params, model.worth))


def _largest_and_smallest(models: Sequence[_Model]) -> list[Claim]:
    """The score of the largest model, what the smallest keeps of it, and how much smaller it is."""
    if not models:
        return []
    best = _largest(models)
    what = f"{_named(best)} of the largest model: {best.name}"
    claims = [Claim(best.score.shown, what, _uncertainty(best))]

    sized = [model for model in models if model.row.bytes_on_disk]
    sized = [model for model in sized if is_file(model.row)] or sized
    # Of equally small models the better one is meant.
    small = min(sized or models, key=lambda m: (m.row.bytes_on_disk or m.row.params, -m.worth))
    # Sizes of one kind alone: a checkpoint is compressed, a file is not.
    of_kind = _largest([m for m in sized if _kind(m) == _kind(small)] or [best])
    # Of files with as many parameters `_same_parameters` says it.
    said_below = is_file(small.row) and of_kind.row.params == small.row.params
    on_disk = None if said_below else small.row.bytes_on_disk
    smaller = []
    for what, base, ours, theirs, unit in (
        ("smaller on disk", of_kind, on_disk, of_kind.row.bytes_on_disk, "B"),
        ("fewer parameters", best, small.row.params, best.row.params, ""),
        ("less arithmetic", best, small.row.flops, best.row.flops, "FLOP"),
    ):
        show = functools.partial(units.compact, unit=unit)
        if unit == "FLOP" and ours and theirs and theirs / ours > _COMPARABLE:
            continue
        smaller += _fewer(f"{what} than {base.name}", ours, theirs, show)
    if not smaller:  # all are as large
        if best.row.bytes_on_disk:
            parameters = f"{units.compact(best.row.params)} parameters"
            claims.append(Claim(units.compact(best.row.bytes_on_disk, "B"), "on disk", parameters))
        return claims

    which = f"the smallest {'file' if sized else 'model'}: {small.name}"
    change = best.score.change(small.score.value - best.score.value)
    if not (best.score.fraction and best.score.higher_is_better):
        what = f"{_named(best)} of {which}"
        claims.append(Claim(small.score.shown, what, f"{change}; {_uncertainty(small)}"))
    elif best.score.value:
        kept = Claim(
            units.share(small.score.value / best.score.value),
            f"of that {_named(best)} kept by {which}",
            f"{small.score.shown}, {change}; {_uncertainty(small)}",
        )
        claims.append(kept)
    return claims + smaller


def _named(model: _Model) -> str:
    """What its score is called."""
    return scores.title(model.row.primary or "")


def _kind(model: _Model) -> str | None:
    """What its size on disk may be compared with: files of one runtime, or checkpoints."""
    return model.row.runtime if is_file(model.row) else None


def _uncertainty(model: _Model) -> str:
    seeds = units.count(model.row.seeds, "seed")
    if model.score.ci95 is None:
        return seeds
    return f"95\u00a0% interval {model.score.interval}, {seeds}"


def _fewer(
    what: str,
    ours: units.Number | None,
    theirs: units.Number | None,
    show: Callable[[units.Number], str],
) -> list[Claim]:
    """`6.4x what`, if both were measured and the ratio is worth saying."""
    if not ours or not theirs or theirs / ours < _WORTH_SAYING:
        return []
    return [Claim(units.times(theirs / ours), what, f"{show(ours)} instead of {show(theirs)}")]


def _same_parameters(models: Sequence[_Model]) -> list[Claim]:
    """The pair of one runtime and equal parameter counts whose files differ most in size."""
    exported = [
        (model, size)
        for model in models
        if (size := model.row.bytes_on_disk) and is_file(model.row)
    ]
    pairs = [
        (theirs / ours, small, large, ours, theirs)
        for small, ours in exported
        for large, theirs in exported
        if small.row.params == large.row.params and small.row.runtime == large.row.runtime
    ]
    if not pairs:
        return []
    _, small, large, ours, theirs = max(pairs, key=lambda pair: pair[0])
    what = f"smaller file than {large.name} with as many parameters: {small.name}"
    change = f"{_named(small)} {small.score.change(small.score.value - large.score.value)}"
    claims = _fewer(what, ours, theirs, lambda value: units.compact(value, "B"))
    return [claim._replace(detail=f"{claim.detail}; {change}") for claim in claims]


def _fastest(models: Sequence[_Model]) -> list[Claim]:
    """The fastest model against the largest that was timed in the same runtime and settings."""
    timed = [(model, ms) for model in models if (ms := model.row.latency_ms_p50)]
    if not timed:
        return []
    quick, ours = min(timed, key=lambda pair: (pair[1], -pair[0].worth))
    setting = settings(quick.row)
    alike = [
        (model, ms)
        for model, ms in timed
        if settings(model.row) == setting and model.row.runtime == quick.row.runtime
    ]
    best = _largest([model for model, _ in alike])
    theirs = next(ms for model, ms in alike if model is best)

    def told(model, ms):
        runtime = f" ({model.row.runtime})" if model.row.runtime else ""
        return f"{units.milliseconds(ms)}{runtime}"

    claims = _fewer(f"faster than {best.name}: {quick.name}", ours, theirs, units.milliseconds)
    median = f"median {told(quick, ours)} instead of {told(best, theirs)}"
    detail = ", ".join(filter(None, [median, settings_text(setting)]))
    return [claim._replace(detail=detail) for claim in claims]


def _sparsest(models: Sequence[_Model]) -> list[Claim]:
    pruned = [(sparsity, model) for model in models if (sparsity := model.row.sparsity)]
    if not pruned:
        return []
    sparsity, model = max(pruned, key=lambda pair: (pair[0], pair[1].worth))
    what = f"of the prunable weights are gone: {model.name}"
    return [Claim(units.share(sparsity), what, f"{_named(model)} {model.score.shown}")]


def _exports(parity: Sequence[Mapping[str, Any]]) -> list[Claim]:
    judged = [export for export in parity if within_tolerance(export) is not None]
    if not judged:
        return []
    good = sum(within_tolerance(export) is True for export in judged)
    what = "exports agree with the live model within their tolerance"
    differences = [e["max_difference"] for e in judged if e.get("tolerance") is not None]
    # Of integers a rounding that falls otherwise moves all that follows: what counts are the answers.
    agreements = [e["agreement"] for e in judged if e.get("tolerance") is None and "agreement" in e]
    found = []
    if differences:
        found.append(f"largest difference {max(differences):.2g}")
    if agreements:
        least = units.share(min(agreements))
        found.append(f"of files that are judged by their answers, at least {least} agree")
    detail = "; ".join(found)
    return [Claim(f"{good} of {len(judged)}", what, detail, is_warning=good < len(judged))]
