"""`report.json` and `report.html` in the work directory, each complete or absent."""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from etils import epath, epy

from kdjax import files
from kdjax.report.rows import Row, gain, is_file
from kdjax.report.units import Number

with epy.lazy_imports():  # what draws is slow to import, and comes last
    from kdjax.report import html

VERSION = 2
"""Of `report.json`: raised when what it has, or is called, changes."""

_NONE: Mapping[str, Any] = MappingProxyType({})


def write(
    workdir: epath.PathLike,
    *,
    run: Mapping[str, Any],
    rows: Sequence[Row],
    curves: Mapping[str, Sequence[Mapping[str, Number]]],
    parity: Sequence[Mapping[str, Any]],
    shrunk: Mapping[str, Mapping[str, Any]] = _NONE,
    sensitivity: Mapping[str, Mapping[str, Any]] = _NONE,
    twins: Sequence[tuple[str, str]] = (),
) -> None:
    """Writes `workdir/report.json`, then `workdir/report.html`, each in one atomic move.

    With several processes, one of them calls this.

    Args:
      workdir: local or `gs://` directory, made if absent.
      run: facts of the run as plain data. The page has a place for `name`, `config` (text),
        `command`, `device`, `seeds` (list), `dataset` (`{"name": ..., "train": 1000, ...}`),
        `versions` (`{"kdjax": ..., "jax": ..., "python": ...}`) and `wall_seconds`
        (`{stage: seconds}`) and `jobs` (processes side by side, if several) and
        `not_done` (`[{"stage": ..., "seed": ..., "why": ...}]`, what the report is without) and `caches`
        (see `kdjax.pipeline.saved`); any other key is listed with them.
      rows: one a model, in the order of the table.
      curves: `{stage: [{"step": int, "loss": float, "loss/kd": float, ...}, ...]}` in the order of
        logging; several seeds one after the other. Only in the page, not in the json.
      parity: one mapping an export: `artifact`, `runtime`, `max_difference`, `tolerance`,
        `agreement` (1 is the same), and whatever else is worth a column.
      shrunk: `{stage: {"seed": 0, **manifest["shrunk"]}}` of one seed, usually the first: `model`,
        `difference`, `groups` (see `kdjax.shrink.described`) and `frozen` (`{"name[axis]": why}`).
      sensitivity: `{stage: {"seed": 0, **manifest["sensitivity"]}}`: `model`, `against`,
        `examples`, `curves` (see `kdjax.shrink.sensitivity`), `layers` (the same by layer and by its
        numbers; may be missing) and `groups`.
      twins: `(student, scratch)`, stages that train one architecture, from a teacher and from the
        labels alone. The first pair with rows heads the page: whether the student is better. In the
        json each is an entry of `over_scratch`.

    Raises:
      ValueError: NaN or infinity anywhere but in `curves`; names the place.
      TypeError: a value that is not plain data; names the place.
      StorageFailed: a file cannot be written; the one before it stays.
    """
    data = {
        "version": VERSION,
        "run": _plain(run, "run"),
        "rows": [_plain(dataclasses.asdict(r), f"rows[{i}]") for i, r in enumerate(rows)],
        "parity": _plain(parity, "parity"),
    }
    if twins:
        live = {row.stage: row for row in rows if not is_file(row)}
        pairs = [pair for pair in twins if live.keys() >= set(pair)]
        gains = [(*pair, gain(*(live[name] for name in pair))) for pair in pairs]
        data["over_scratch"] = [
            {"student": student, "scratch": scratch, **_plain(found._asdict(), "over_scratch")}
            for student, scratch, found in gains
            if found is not None
        ]
    for key, found in (("shrunk", shrunk), ("sensitivity", sensitivity)):
        if found:
            data[key] = _plain(found, key)
    workdir = epath.Path(workdir)
    with files.storing(workdir):
        workdir.mkdir(parents=True, exist_ok=True)
    text = json.dumps(data, indent=2, allow_nan=False, ensure_ascii=False)
    files.write(workdir / "report.json", _bytes(text + "\n"))
    text = html.page(
        run=data["run"],
        rows=rows,
        curves=curves,
        parity=data["parity"],
        shrunk=data.get("shrunk", _NONE),
        sensitivity=data.get("sensitivity", _NONE),
        twins=twins,
    )
    files.write(workdir / "report.html", _bytes(text))


def _bytes(text: str) -> bytes:
    """The encoding must not depend on the locale. A lone surrogate becomes "?"."""
    return text.encode("utf-8", errors="replace")


def _plain(value: Any, where: str) -> Any:
    """JSON data, with the place of whatever is not."""
    if isinstance(value, np.generic):
        value = value.item()
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            if not math.isfinite(value):
                raise ValueError(f"report.json: {where} is {value}; use None if not measured")
            return value
        case Mapping():
            return {str(key): _plain(item, f"{where}.{key}") for key, item in value.items()}
        case list() | tuple():
            return [_plain(item, f"{where}[{i}]") for i, item in enumerate(value)]
    raise TypeError(f"report.json: {where} is a {type(value).__name__}, not plain data")
