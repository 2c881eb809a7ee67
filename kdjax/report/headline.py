"""What a reader should know first, worked out from measured rows only."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from kdjax.report import units
from kdjax.report.rows import Row, labels

_WORTH_SAYING = 1.05  # a model 3 % smaller is not news


class Claim(NamedTuple):
    """`value` in large type, `what` it is, and the `detail` that lets a reader check it."""

    value: str
    what: str
    detail: str
    is_warning: bool = False


def settings(row: Row) -> tuple[int | None, int | None]:
    """Latencies can be compared only where these are equal: (threads, batch)."""
    return row.threads, row.batch


def settings_text(setting: tuple[int | None, int | None]) -> str:
    """`1 thread, batch 8`, leaving out what is not known."""
    threads, batch = setting
    known = [None if threads is None else units.count(threads, "thread")]
    known += [None if batch is None else f"batch {batch}"]
    return ", ".join(filter(None, known))


def _uncertainty(row: Row) -> str:
    seeds = units.count(row.seeds, "seed")
    if row.accuracy_ci95 is None:
        return seeds
    return f"95\u00a0% interval {units.interval(row.accuracy_ci95)}, {seeds}"


def _fewer(small: Row, large: Row, field: str, show: Callable[[float], str]):
    """`(ratio, "a instead of b")` if both were measured and the ratio is worth saying."""
    a, b = getattr(small, field), getattr(large, field)
    if not a or not b or b / a < _WORTH_SAYING:
        return None
    return b / a, f"{show(a)} instead of {show(b)}"


def _same_parameters(rows: Sequence[Row]):
    """The exported pair with equal parameter counts whose files differ most in size."""
    exported = [row for row in rows if row.bytes_on_disk and row.runtime]
    pairs = [
        (large.bytes_on_disk / small.bytes_on_disk, small, large)
        for small in exported
        for large in exported
        if small.params == large.params
    ]
    ratio, small, large = max(pairs, key=lambda pair: pair[0], default=(1.0, None, None))
    return (small, large) if ratio >= _WORTH_SAYING else None


def _fastest(rows: Sequence[Row]):
    """Fastest and most accurate of the rows timed under the most used settings."""
    timed = [row for row in rows if row.latency_ms_p50]
    if not timed:
        return None
    used = [settings(row) for row in timed]
    setting = max(dict.fromkeys(used), key=used.count)
    alike = [row for row in timed if settings(row) == setting]
    return min(alike, key=lambda r: r.latency_ms_p50), max(alike, key=lambda r: r.accuracy), setting


def headline(rows: Sequence[Row], parity: Sequence[Mapping[str, Any]] = ()) -> list[Claim]:
    """The claims that the rows can carry, most important first; empty if there are none."""
    name = dict(zip(map(id, rows), labels(rows), strict=True))
    known = [row for row in rows if row.accuracy is not None]
    claims = []
    if known:
        best = max(known, key=lambda row: row.accuracy)
        claims.append(
            Claim(
                units.share(best.accuracy),
                f"best accuracy: {name[id(best)]}",
                _uncertainty(best),
            )
        )
        sized = [row for row in known if row.bytes_on_disk]
        small = min(sized or known, key=_smallness)
        claims += _against(best, small, name, thing="file" if sized else "model")

    if pair := _same_parameters(known):
        small, large = pair
        ratio, detail = _fewer(small, large, "bytes_on_disk", lambda b: units.compact(b, "B"))
        change = units.points(small.accuracy - large.accuracy)
        claims.append(
            Claim(
                units.times(ratio),
                f"smaller file than {name[id(large)]} with as many parameters: {name[id(small)]}",
                f"{detail}; accuracy {change}",
            )
        )
    if fast := _fastest(known):
        quick, accurate, setting = fast
        if said := _fewer(quick, accurate, "latency_ms_p50", str):
            what = f"faster than {name[id(accurate)]}: {name[id(quick)]}"
            median = f"median {_timing(quick)} instead of {_timing(accurate)}"
            detail = ", ".join(filter(None, [median, settings_text(setting)]))
            claims.append(Claim(units.times(said[0]), what, detail))
    if pruned := [row for row in known if row.sparsity]:
        sparse = max(pruned, key=lambda row: row.sparsity)
        claims.append(
            Claim(
                units.share(sparse.sparsity),
                f"of the prunable weights are gone: {name[id(sparse)]}",
                f"accuracy {units.share(sparse.accuracy)}",
            )
        )
    judged = [v for export in parity if (v := within_tolerance(export)) is not None]
    if judged:
        worst = max(e["max_logit_difference"] for e in parity if within_tolerance(e) is not None)
        claims.append(
            Claim(
                f"{sum(judged)} of {len(judged)}",
                "exports agree with the live model within their tolerance",
                f"largest logit difference {worst:.2g}",
                is_warning=not all(judged),
            )
        )
    return claims


def _smallness(row: Row):
    """Of equally small models the more accurate one comes first."""
    return row.bytes_on_disk or row.params, -(row.accuracy or 0)


def _timing(row: Row) -> str:
    return units.milliseconds(row.latency_ms_p50) + (f" ({row.runtime})" if row.runtime else "")


def _against(best: Row, small: Row, name: Mapping[int, str], *, thing: str) -> list[Claim]:
    """What the smallest keeps of the best, and how much smaller it is."""
    if small is best:
        if not best.bytes_on_disk:
            return []
        size = units.compact(best.bytes_on_disk, "B")
        return [Claim(size, "on disk", f"{units.compact(best.params)} parameters")]
    change = units.points(small.accuracy - best.accuracy)
    kept = Claim(
        units.share(small.accuracy / best.accuracy if best.accuracy else None),
        f"of that accuracy kept by the smallest {thing}: {name[id(small)]}",
        f"{units.share(small.accuracy)}, {change}; {_uncertainty(small)}",
    )
    claims = [kept]
    for field, what, unit in (
        ("bytes_on_disk", "smaller on disk", "B"),
        ("params", "fewer parameters", ""),
        ("flops", "less arithmetic", "FLOP"),
    ):
        if said := _fewer(small, best, field, lambda value, unit=unit: units.compact(value, unit)):
            what = f"{what} than {name[id(best)]}"
            claims.append(Claim(units.times(said[0]), what, said[1]))
    return claims


def within_tolerance(export: Mapping[str, Any]) -> bool | None:
    """Whether an export's logits are as near as was asked; `None` if that was not measured."""
    difference, tolerance = export.get("max_logit_difference"), export.get("tolerance")
    if difference is None or tolerance is None:
        return None
    return bool(difference <= tolerance)
