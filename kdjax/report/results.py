"""Results that are kept as JSON: of a finished run, and of runs of other seeds together."""

import dataclasses
import itertools
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from kdjax.report.rows import Row, aggregate, labels, row_of
from kdjax.types import BadFile, BadInput


def kept(report: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a `report.json` that is kept: the results, and how they were obtained.

    Raises:
      BadInput: the run is not done, or it is no report.
    """
    if not {"run", "rows"} <= report.keys():
        raise BadFile("report.json", "not a report of kdjax", "name the work directory of a run")
    run = report["run"]
    if run["not_done"]:
        missing = ", ".join(f"{e['stage']} (seed {e['seed']})" for e in run["not_done"])
        raise BadFile(
            "report.json", f"{missing}: {run['not_done'][0]['why']}", "finish the run first"
        )
    rows = [row_of(row, "report.json: rows") for row in report["rows"]]
    seconds = sum(run["wall_seconds"].values())
    return {
        "command": _command(run["command"]),
        "seeds": run["seeds"],
        "dataset": run["dataset"],
        "device": run["device"],
        "versions": run["versions"],
        "hours": round(seconds / 3600, 3),
        "minutes_a_seed": round(seconds / 60 / len(run["seeds"]), 2),
        "wall_seconds": run["wall_seconds"],
        **({"jobs": run["jobs"]} if "jobs" in run else {}),
        "rows": {
            name: _known(dataclasses.asdict(row))
            for name, row in zip(labels(rows), rows, strict=True)
        },
    }


def _known(row: Mapping[str, Any]) -> dict[str, Any]:
    """What was measured, and differs from the usual."""
    found = {k: v for k, v in row.items() if v not in (None, "")}
    usual = {"higher_is_better": True, "fraction": True, "ci95": None, "per_seed": None}
    found["scores"] = {
        name: {k: v for k, v in score.items() if k not in usual or v != usual[k]}
        for name, score in row["scores"].items()
    }
    return found


def _command(command: str) -> str:
    """Without the directories of one machine."""
    command = re.sub(r"--workdir=\S+", "--workdir=DIR", command)
    command = re.sub(r"data_dir=[^\s,]+", "data_dir=TFDS", command)
    command = re.sub(r"--config=\S*?(configs/)", r"--config=\1", command)
    return re.sub(r"=/[^\s,]*/", "=", command)


_KEPT: Mapping[str, type | tuple[type, ...]] = {
    "command": (str, list),
    "seeds": list,
    "dataset": dict,
    "device": (str, list),
    "versions": (dict, list),
    "hours": (int, float),
    "wall_seconds": dict,
    "rows": dict,
}


def joined(found: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Results of one command for some seeds each, as those of all of these seeds.

    Scores are those of `aggregate`, as if one run had had all seeds, in their order; so are the other
    fields, each result counting as often as it has seeds.

    Args:
      found: what was kept (`kept`), by the name of its file.

    Raises:
      BadInput: one was not kept so, or they are of other commands, data or models, or of the same seed.
    """
    for name, one in found.items():
        for field, kind in _KEPT.items():
            if not isinstance(one.get(field), kind):
                fault = "of another kind" if field in one else "missing"
                raise BadFile(
                    name, f"{field}: {fault}", "name files that `kdjax tables keep` wrote"
                )
    (first, base), *others = found.items()
    for name, one in others:
        for what, mine, wanted in (
            ("command", _but_for_seeds(one), _but_for_seeds(base)),
            ("dataset", one["dataset"], base["dataset"]),
            ("rows", [*one["rows"]], [*base["rows"]]),
        ):
            if mine != wanted:
                raise BadFile(
                    name, f"{what}: not that of {first}, but for the seeds", "join the same"
                )
    of = [(seed, name, i) for name, one in found.items() for i, seed in enumerate(one["seeds"])]
    of.sort()
    for (seed, name, _), (again, other, _) in itertools.pairwise(of):
        if seed == again:
            raise BadFile(other, f"seeds: {seed} is in {name}, too", "join other seeds")
    each = {name: _each(name, one) for name, one in found.items()}
    rows = {}
    for label in base["rows"]:
        ours = [each[name][label][i] for _, name, i in of]
        rows[label] = _together(label, ours)
    seconds = {
        stage: round(sum(one["wall_seconds"].get(stage, 0.0) for one in found.values()), 1)
        for stage in base["wall_seconds"]
    }
    hours = sum(one["hours"] for one in found.values())
    return {
        "command": [command for one in found.values() for command in _commands(one)],
        "seeds": [seed for seed, _, _ in of],
        "dataset": base["dataset"],
        "device": _either([one["device"] for one in found.values()]),
        "versions": _either([one["versions"] for one in found.values()]),
        "hours": round(hours, 3),
        "minutes_a_seed": round(60 * hours / len(of), 2),
        "wall_seconds": seconds,
        "rows": rows,
    }


def _commands(one: Mapping[str, Any]) -> list[str]:
    """One, or several where results were joined before."""
    said = one["command"]
    return [said] if isinstance(said, str) else [*said]


def _but_for_seeds(one: Mapping[str, Any]) -> set[str]:
    """Its commands without what says which seeds they run, and how many of them side by side."""
    found = set()
    for command in _commands(one):
        command = re.sub(r"(?<=[:,])seeds=\d+(,|(?=\s|$))", "", command)
        command = re.sub(r"[:,](?=\s|$)", "", command)
        words = iter(shlex.split(command))
        kept = []
        for word in words:
            name, sign, _ = word.partition("=")
            if name not in ("--config.seeds", "--jobs"):
                kept.append(word)
            elif not sign:
                next(words, "")
        found.add(shlex.join(kept))
    return found


def _each(name: str, one: Mapping[str, Any]) -> dict[str, list[Row]]:
    """Of each row of a file those of its seeds alone."""
    found = {}
    for label, said in one["rows"].items():
        row = row_of(said, f"{name}: rows.{label}")
        found[label] = [_of_seed(row, i) for i in range(len(one["seeds"]))]
    return found


def _of_seed(row: Row, i: int) -> Row:
    """That of one seed; all of a row whose stage is one for all seeds."""
    scores = {
        name: dataclasses.replace(score, value=score.each[i], per_seed=None)
        for name, score in row.scores.items()
        if i < len(score.each)
    }
    return row if row.seeds == 1 else dataclasses.replace(row, scores=scores, seeds=1)


def _together(label: str, rows: Sequence[Row]) -> dict[str, Any]:
    try:
        return _known(dataclasses.asdict(aggregate(rows)))
    except ValueError as error:
        raise BadInput(f"rows.{label}", str(error).removeprefix("aggregate: ")) from None


def _either(values: Sequence[Any]) -> Any:
    """The one that all have; all that there are where they differ."""
    different = [one for i, one in enumerate(values) if one not in values[:i]]
    return different[0] if len(different) == 1 else different
