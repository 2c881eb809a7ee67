"""A run as a graph of stages: what there is to do, what is done, and the doing of it."""

import dataclasses
import graphlib
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
from etils import epath
from jax.experimental import multihost_utils

from kdjax import config, fingerprint, parse, stages, train
from kdjax.stages import Artifact, Context, Splits
from kdjax.types import BadInput

VERSION = 4
"""Part of every fingerprint: raised when stages compute other things from the same config."""


@dataclasses.dataclass(frozen=True)
class Task:
    """One stage for one seed.

    Attributes:
      name: of the stage.
      seed: it is run for.
      stage: its config.
      fingerprint: of its config, its data and all it is made from.
      folder: where its artifact is, or will be; the fingerprint is part of its name, so that
        another config never finds, resumes or overwrites this one's.
      needs: the tasks that it reads.
    """

    name: str
    seed: int
    stage: config.Stage
    fingerprint: str
    folder: epath.Path
    needs: tuple["Task", ...]

    @property
    def done(self) -> bool:
        """The artifact is there and whole."""
        return (self.folder / stages.MANIFEST).exists()


def order(run: config.Run) -> list[str]:
    """The stages, each after what it needs, otherwise as they stand in the config.

    Raises:
      BadInput: a stage names one that is not there, or they need each other in a circle.
    """
    needs = {name: stage.needs(run.stages) for name, stage in run.stages.items()}
    for name, others in needs.items():
        for other in others:
            if other not in run.stages:
                hint = parse.nearest(other, run.stages)
                raise BadInput(f"config.stages.{name}: there is no stage {other!r}{hint}")
    try:
        graphlib.TopologicalSorter(needs).prepare()
    except graphlib.CycleError as error:
        circle = " -> ".join(error.args[1])
        raise BadInput(f"config.stages: they need each other in a circle: {circle}") from None
    found: dict[str, None] = {}

    def visit(name: str) -> None:
        for other in needs[name]:
            visit(other)
        found.setdefault(name)

    for name in run.stages:
        visit(name)
    return list(found)


def plan(
    run: config.Run, workdir: epath.Path, splits: Splits, *, only: Sequence[str] | None = None
) -> list[Task]:
    """The tasks of a run in the order in which they can be done.

    Args:
      run: the config.
      workdir: of the run.
      splits: the data, whose fingerprint is part of every task's.
      only: stages to do, with all that they need; None for all but the caches that no stage reads,
        since a student that asks its teacher live needs the config of a cache and not its files.

    Raises:
      BadInput: a stage is not there.
    """
    names = order(run)
    if only is None:
        read = {other for stage in run.stages.values() for other in stage.needs(run.stages)}
        caches = {name for name in names if isinstance(run.stages[name], config.Cache)}
        only = [name for name in names if name not in caches - read]
    wanted = set(only)
    for name in wanted - set(names):
        raise BadInput(f"--stages: there is no stage {name!r}{parse.nearest(name, names)}")
    for name in reversed(names):
        if name in wanted:
            wanted |= set(run.stages[name].needs(run.stages))

    splits.shown(run.seeds[0])  # too few labels of a class: said before anything is trained
    for name in names:
        stage = run.stages[name]
        if name in wanted and isinstance(stage, config.Labels):
            splits.shown(run.seeds[0], stage, path=f"config.stages.{name}")
    data = {
        "train": splits.train.fingerprint,
        "test": splits.test.fingerprint,
        "config": parse.plain(run.data, fingerprint=True),
    }
    tasks: dict[tuple[str, int], Task] = {}
    for seed in run.seeds:
        for name in names:
            if name not in wanted:
                continue
            stage = run.stages[name]
            needs = tuple(tasks[other, seed] for other in stage.needs(run.stages))
            content = {
                "version": VERSION,
                "name": name,
                "seed": seed,
                "stage": parse.plain(stage, fingerprint=True),
                "reads": _read_config(run, stage),
                "data": data,
                "needs": {task.name: task.fingerprint for task in needs},
            }
            mark = fingerprint.of_json(content)
            folder = workdir / "stages" / f"{name}-seed{seed}-{mark[:8]}"
            tasks[name, seed] = Task(name, seed, stage, mark, folder, needs)
    return list(tasks.values())


def _read_config(run: config.Run, stage: config.Stage) -> Any:
    """Configs of other stages that this one reads without needing their artifacts."""
    if isinstance(stage, config.FromCache):
        return parse.plain(run.stages[stage.cache], fingerprint=True)
    return None


def execute(run: config.Run, tasks: Sequence[Task], splits: Splits) -> None:
    """Does every task that is not done, each from the artifacts of those that it needs.

    Of several processes all train and ask teachers, and the first one does the rest: they share the
    work directory.

    Raises:
      BadInput: as `kdjax.stages.check`, before anything is done.
      BadInput, Diverged, StageFailed: as `kdjax.stages.run`; what was done before stays done.
    """
    parallel = train.choose(run.parallel)
    for task in tasks:
        if not task.done:
            stages.check(task.stage)
    for task in tasks:
        if task.done:
            _say(f"{task.name} (seed {task.seed}): done before, skipped")
            continue
        task.folder.mkdir(parents=True, exist_ok=True)
        inputs = {other.name: Artifact.open(other.folder, other.stage) for other in task.needs}
        begun = time.monotonic()
        context = Context(run, task.name, task.seed, task.folder, inputs, splits, parallel)
        first = jax.process_index() == 0
        said: Mapping[str, Any] = {}
        if first or isinstance(task.stage, config.Training | config.Cache):
            said = stages.run(context, task.stage)
        seconds = time.monotonic() - begun
        manifest = {
            "stage": task.name,
            "seed": task.seed,
            "config": parse.plain(task.stage),
            "fingerprint": task.fingerprint,
            "upstream": {other.name: other.fingerprint for other in task.needs},
            "data": {"train": splits.train.fingerprint, "test": splits.test.fingerprint},
            "wall_seconds": round(seconds, 2),
            **said,
        }
        if first:
            stages.finish(task.folder, manifest)
        if jax.process_count() > 1:  # what the next stage reads is there for every process
            multihost_utils.sync_global_devices(task.fingerprint)
        _say(f"{task.name} (seed {task.seed}): {seconds:.1f} s{_result(said)}")


def replay(
    run: config.Run,
    tasks: Sequence[Task],
    splits: Splits,
    *,
    only: Sequence[str] | None,
    step: int,
) -> list[str]:
    """What one step of one stage does, in lines; the work directory stays as it is.

    Args:
      run: the config.
      tasks: of the run, see `plan`.
      splits: the data.
      only: the name of the stage alone; of several seeds the first is taken.
      step: to look at, the first is 1.

    Raises:
      BadInput: it is no step of a stage that trains, or what that needs is not done.
    """
    if only is None or len(only) != 1:
        raise BadInput("--replay_step: name the stage, and it alone, with --stages=NAME")
    if jax.process_count() > 1:
        raise BadInput("--replay_step: it is for one process; the batch is the same there")
    task = next(task for task in tasks if task.name == only[0])
    if not isinstance(task.stage, config.Training):
        raise BadInput(f"--replay_step: config.stages.{task.name} does not train")
    if not 1 <= step <= task.stage.steps:
        raise BadInput(f"--replay_step: {step} is not a step of 1 to {task.stage.steps}")
    for other in task.needs:
        if not other.done:
            raise BadInput(
                f"--replay_step: {task.name} needs {other.name} (seed {other.seed}), which is not "
                "done; run the same command without --replay_step first"
            )
    inputs = {other.name: Artifact.open(other.folder, other.stage) for other in task.needs}
    context = Context(
        run, task.name, task.seed, task.folder, inputs, splits, train.choose(run.parallel), step
    )
    try:
        stages.run(context, task.stage)
    except train.Replayed as found:
        return [f"{task.name} (seed {task.seed}), {found.lines[0]}", *found.lines[1:]]
    raise AssertionError(f"{task.name} trains and was not replayed")


def manifests(tasks: Sequence[Task]) -> Iterator[tuple[Task, Mapping[str, Any]]]:
    """The manifest of every task that is done."""
    for task in tasks:
        if task.done:
            yield task, Artifact.open(task.folder, task.stage).manifest


def first_said(tasks: Sequence[Task], key: str) -> dict[str, dict[str, Any]]:
    """`{stage: {"seed": seed, **manifest[key]}}` for the first seed of each that is done.

    What describes one model and has no mean over seeds, as `kdjax.report.write` takes it.

    Args:
      tasks: of the run.
      key: of a mapping in the manifests of some stages, such as `shrunk`.
    """
    found: dict[str, dict[str, Any]] = {}
    for task, manifest in manifests(tasks):
        if key in manifest:
            found.setdefault(task.name, {"seed": task.seed, **manifest[key]})
    return found


def _result(said: Mapping[str, Any]) -> str:
    rows = said.get("rows", ())
    shown = [
        f"{row['accuracy']:.1%} ({row['stage']})" for row in rows if row["accuracy"] is not None
    ]
    return f", accuracy {', '.join(shown)}" if shown else ""


def _say(line: str) -> None:
    if jax.process_index() == 0:
        print(line, file=sys.stderr, flush=True)
