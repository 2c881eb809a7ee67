"""`kdjax report WORKDIR`: writes report.json and report.html of a work directory again.

Its arguments, and what it says of itself: `kdjax.commands.words.report`.
"""

import dataclasses
import statistics
import sys
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from kdjax import config, data, files, lock, parse, pipeline, report
from kdjax.artifacts import machine, proof
from kdjax.commands import words
from kdjax.contexts import Splits
from kdjax.files import from_json
from kdjax.train import recorder
from kdjax.types import BadFile, BadInput


def main(given: Sequence[str]) -> int:
    """Writes the report again.

    Returns:
      The exit status.

    Raises:
      BadInput: there is no report, or nothing of its config is finished.
    """
    args = words.report().parse_args(given)
    workdir = epath.Path(args.workdir)
    path = workdir / "report.json"
    ran = _ran(path)
    run = parse.parse(config.Run, ran["config"], f"{path}: run.config")
    if args.data_dir is not None:
        run = dataclasses.replace(run, data=dataclasses.replace(run.data, data_dir=args.data_dir))
    write_report(
        run,
        workdir,
        Splits(run.data, data.Kept(workdir / "records")),
        command=ran["command"],
        again=True,
    )
    print(workdir / "report.html")
    return 0


def _ran(path: epath.Path) -> Mapping[str, Any]:
    """The facts of a run, from its report."""
    again = "run the command of that run again: it skips what is finished and writes the report"
    try:
        ran = from_json(path.read_text())["run"]
    except OSError as error:
        fault, _ = files.meaning(error) or (str(error), "")
        raise BadFile(path, fault, again) from None
    except (ValueError, LookupError, TypeError):
        raise BadFile(path, "not a report of kdjax", again) from None
    missing = [name for name in ("config", "command") if name not in ran]
    if missing:
        raise BadFile(path, f"run.{missing[0]}: missing", again)
    return ran


def write_report(
    run: config.Run,
    workdir: epath.Path,
    splits: Splits,
    *,
    command: str,
    again: bool = False,
) -> pipeline.Finished:
    """Writes the report of all that is done of a config, with one row for each model over all seeds.

    Whatever runs have left in the work directory, in parts, by seeds or at the same time: who comes
    last writes of all of it.

    Args:
      run: the config, with all the seeds that were asked for.
      workdir: that the run is kept in.
      splits: its data.
      command: that started the run.
      again: the report that is there is to be replaced, by one that has something in it.

    Returns:
      What it is of.

    Raises:
      BadInput: the report is to be written `again`, and nothing of the config is done.
      StorageFailed: a file cannot be written; the one before it stays.
    """
    with lock.held(workdir / ".report.lock", waiting=lambda other: None), files.storing(workdir):
        found = pipeline.finished(run, workdir, splits)
        if again and not found.manifests:
            raise BadFile(
                workdir,
                "no stage of the config in report.json is finished there, or with another version of "
                "kdjax or other data",
                "the report stays as it is",
            )
        _write_report(run, workdir, found, splits, command)
    return found


def _write_report(
    run: config.Run,
    workdir: epath.Path,
    found: pipeline.Finished,
    splits: Splits,
    command: str,
) -> None:
    parity: list[dict[str, Any]] = []
    curves: dict[str, list[dict[str, int | float]]] = defaultdict(list)
    seconds: dict[str, float] = defaultdict(float)
    features: dict[str, list[dict[str, float]]] = defaultdict(list)
    for task, manifest in found.manifests:
        parity += [{"seed": task.seed, **entry} for entry in manifest.get("parity", ())]
        curves[task.name] += _log(task)
        seconds[task.name] += manifest["wall_seconds"]
        if "pairs" in manifest:
            features[task.name].append(manifest["pairs"])
    jobs = max((manifest.get("jobs", 1) for _, manifest in found.manifests), default=1)
    for entry in found.missing:
        if entry["why"] != "not done":
            print(f"{entry['stage']} (seed {entry['seed']}): left out of the report, {entry['why']}",
                  file=sys.stderr)  # fmt: skip
    train_set, test_set = splits.train, splits.test
    share = run.data.labels_share
    labels = run.data.labels_per_class if share is None else f"{100 * share:g} %"
    report.write(
        workdir,
        run={
            "name": run.name,
            "seeds": found.seeds,
            "dataset": {
                "name": run.data.name,
                "train": len(train_set),
                "test": len(test_set),
                **train_set.target.facts(),
                "labels per class": "all" if labels is None else labels,
                **({"notes": [*splits.notes]} if splits.notes else {}),
            },
            **_mean_features(features),
            "command": command,
            "device": _devices(found),
            "versions": _versions(found),
            "wall_seconds": {name: round(s, 1) for name, s in seconds.items()},
            **({"jobs": jobs} if jobs > 1 else {}),
            **({"caches": caches} if (caches := pipeline.saved(found.manifests)) else {}),
            "not_done": found.missing,
            "config": parse.plain(run),
        },
        rows=_rows(found),
        curves={name: lines for name, lines in curves.items() if lines},
        parity=parity,
        shrunk=pipeline.first_said(found.manifests, "shrunk"),
        sensitivity=pipeline.first_said(found.manifests, "sensitivity"),
        twins=pipeline.twins(run),
    )


def _rows(found: pipeline.Finished) -> list[report.Row]:
    """One for each model and file, over its seeds; files of one name are told apart by their stages."""
    rows: dict[tuple[str, str, str], list[report.Row]] = defaultdict(list)
    for task, manifest in found.manifests:
        for row in manifest.get("rows", ()):
            made = parse.parse(report.Row, row, str(task.folder))
            rows[task.name, made.stage, made.model].append(made)
    named = Counter(key[1:] for key in rows)
    return [
        dataclasses.replace(row, stage=f"{stage}/{row.stage}")
        if named[row.stage, row.model] > 1
        else row
        for (stage, _, _), row in ((key, report.aggregate(seeds)) for key, seeds in rows.items())
    ]


def _devices(found: pipeline.Finished) -> str:
    """What the stages were run on; where they were run on several, which of them on which."""
    stages_of: dict[str, list[str]] = defaultdict(list)
    for task, manifest in found.manifests:
        if task.name not in stages_of[manifest["device"]]:
            stages_of[manifest["device"]].append(task.name)
    if len(stages_of) < 2:
        return next(iter(stages_of), machine.device())
    return "; ".join(f"{device}: {', '.join(names)}" for device, names in stages_of.items())


def _versions(found: pipeline.Finished) -> dict[str, str]:
    """Of each package those that the stages were run with, in the order of the stages."""
    seen: dict[str, list[str]] = defaultdict(list)
    for _, manifest in found.manifests:
        for name, version in manifest["versions"].items():
            if version not in seen[name]:
                seen[name].append(version)
    return {name: ", ".join(those) for name, those in seen.items()} or machine.versions()


def _log(task: pipeline.Task) -> list[dict[str, int | float]]:
    try:
        return recorder.read(task.folder / "metrics.jsonl")
    except BadInput as error:  # too large to be hashed each time
        raise proof.Damaged(task.folder, f"{error.path}: {error.fault}") from None


def _mean_features(features: Mapping[str, Sequence[Mapping[str, float | int]]]) -> dict[str, Any]:
    """Alignment and uniformity of each encoder's features, the mean over its seeds."""
    means = {
        stage: {name: statistics.fmean(seed[name] for seed in seeds) for name in seeds[0]}
        for stage, seeds in features.items()
    }
    return {"features": means} if means else {}
