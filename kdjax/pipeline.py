"""A run as a graph of stages: what there is to do, what is done, and the doing of it."""

import contextlib
import dataclasses
import graphlib
import itertools
import re
import sys
import time
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath
from jax.experimental import multihost_utils

from kdjax import config, files, fingerprint, lock, parse, report, stages, train
from kdjax.stages import Artifact, Context, Expected, Splits, proof
from kdjax.stages.coupling import check_rows
from kdjax.stages.effect import check_effect
from kdjax.types import BadInput

VERSION = 6
"""Part of every fingerprint: raised when stages compute other things from the same config."""

_LONGEST_NAME = 80
"""Characters of a stage's name: with its seed, its fingerprint and a suffix it is the name of a file."""


@dataclasses.dataclass(frozen=True)
class Task:
    """One stage for one seed.

    Attributes:
      name: of the stage.
      seed: that it is run for, see `config.Seeded`.
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
        """The artifact is there and whole, as far as names, sizes and small files can tell.

        Raises:
          BadInput: it is there and not whole; the line names the file and the mend.
        """
        return proof.prove(self.folder, fingerprint=self.fingerprint) is not None

    @property
    def title(self) -> str:
        """As messages name it."""
        return f"{self.name} (seed {self.seed})"

    @property
    def lock(self) -> epath.Path:
        """Held while it is done."""
        return proof.lock_of(self.folder)


def order(run: config.Run) -> list[str]:
    """The stages, each after what it needs, otherwise as they stand in the config.

    Raises:
      BadInput: a stage names one that is not there, or they need each other in a circle.
    """
    check_names(run.stages)
    needs = {name: stage.needs(run.stages) for name, stage in run.stages.items()}
    for name, stage in run.stages.items():
        for field, other in _named(stage):
            if other not in run.stages:
                hint = parse.suggestion(other, run.stages)
                raise BadInput(
                    f"config.stages.{name}.{field}", f"there is no stage {other!r}", hint
                )
        if stage.seed is not None:
            _check_seed(run, name, needs[name])
    try:
        graphlib.TopologicalSorter(needs).prepare()
    except graphlib.CycleError as error:
        circle: list[str] = error.args[1]
        paths = []
        for reads, name in itertools.pairwise(circle):
            # What a stage reads and does not name is a teacher of the cache that it names.
            own = (field for field, other in _named(run.stages[name]) if other == reads)
            paths.append(f"config.stages.{name}.{next(own, 'cache')}")
        raise BadInput(
            f"{', '.join(paths)}", f"they need each other in a circle: {' -> '.join(circle)}"
        ) from None
    found: dict[str, None] = {}

    def visit(name: str) -> None:
        for other in needs[name]:
            visit(other)
        found.setdefault(name)

    for name in run.stages:
        visit(name)
    return list(found)


def _check_seed(run: config.Run, name: str, needs: Iterable[str]) -> None:
    """Raises `BadInput` where a stage cannot be of one seed, whichever seed the others are of."""
    stage, path = run.stages[name], f"config.stages.{name}.seed"
    for other in needs:
        if run.stages[other].seed != stage.seed:
            raise BadInput(
                f"{path}, config.stages.{other}.seed",
                f"{name} is run for seed {stage.seed} alone and needs {other}, which is not",
                "give both the same seed",
            )
    taught = isinstance(stage, config.Finetune | config.Distill)
    if taught and set(run.seeds) != {stage.seed} and _labels(run, stage) not in _ALL:
        raise BadInput(
            path,
            f"{stage.seed}, and which labels may be used is drawn by the seed: the stages of another "
            "one would learn the labels of both",
            "leave it out",
        )


def _labels(run: config.Run, stage: config.Stage) -> tuple[int | None, float | None]:
    """Which labels a stage may use: `labels_per_class` and `labels_share`, its own or the data's."""
    own: config.Labels = run.data
    if isinstance(stage, config.Labels):
        given = (stage.labels_per_class, stage.labels_share)
        own = run.data if given == (None, None) else stage
    return own.labels_per_class, own.labels_share


_ALL = ((None, None), (None, 1.0))
"""Labels."""


def _named(stage: config.Stage) -> Iterator[tuple[str, str]]:
    """`(field, name)` of the stages that a stage names itself."""
    for field in ("start_from", "cache", "model", "sensitivity", "teacher"):
        match getattr(stage, field, None):
            case str(name):
                yield field, name
            case tuple(names):
                yield from ((f"{field}[{i}]", name) for i, name in enumerate(names))


def check_names(names: Iterable[str]) -> None:
    """Raises `BadInput` where a stage's name is none for a folder, see `kdjax.config.Run`."""
    taken: dict[str, str] = {}
    for name in names:
        shown = repr(name if len(name) <= _LONGEST_NAME else f"{name[:20]}...")
        if not name:
            raise BadInput("config.stages", "a stage has an empty name", "give it one")
        if len(name) > _LONGEST_NAME or len(name.encode()) > 2 * _LONGEST_NAME:
            raise BadInput(
                "config.stages",
                f"the name {shown} has {len(name)} characters ({len(name.encode())} bytes)",
                f"{_LONGEST_NAME} are the most ({2 * _LONGEST_NAME} bytes)",
            )
        if not re.fullmatch(r"[^\W_](?:[\w -]*[\w-])?", unicodedata.normalize("NFC", name)):
            raise BadInput(
                "config.stages",
                f"{shown} is no name of a stage",
                "write letters, digits, _ and -, a letter or digit first: it becomes part of the "
                "names of folders",
            )
        folded = unicodedata.normalize("NFKC", name).casefold()
        if folded in taken:
            raise BadInput(
                f"config.stages.{name}",
                f"it is {taken[folded]} on a file system that does not tell capitals apart",
                "rename one of them",
            )
        taken[folded] = name


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
    wanted = set(_default(run, names) if only is None else only)
    for name in wanted - set(names):
        raise BadInput("--stages", f"there is no stage {name!r}", parse.suggestion(name, names))
    for name in reversed(names):
        if name in wanted:
            wanted |= set(run.stages[name].needs(run.stages))

    stages.sizes.check_data(splits)
    splits.shown(run.seeds[0])  # too few labels of a class: said before anything is trained
    for name in names:
        if name not in wanted:
            continue
        stage = run.stages[name]
        stages.sizes.check(run, name, splits)
        if isinstance(stage, config.Labels):
            splits.shown(run.seeds[0], stage, path=f"config.stages.{name}")
    return _tasks(run, workdir, splits, wanted=wanted, seeds=run.seeds)


def _default(run: config.Run, names: Sequence[str]) -> list[str]:
    """The stages of a run that names none: all but the caches that no stage reads."""
    read = {other for stage in run.stages.values() for other in stage.needs(run.stages)}
    caches = {name for name in names if isinstance(run.stages[name], config.Cache)}
    return [name for name in names if name not in caches - read]


def _tasks(
    run: config.Run,
    workdir: epath.Path,
    splits: Splits,
    *,
    wanted: Collection[str],
    seeds: Sequence[int],
) -> list[Task]:
    names = order(run)
    described = parse.plain(run.data, fingerprint=True)
    tasks: dict[tuple[str, int], Task] = {}
    for seed in seeds:
        for name in names:
            if name not in wanted:
                continue
            stage = run.stages[name]
            if (name, own := stage.seed_of(seed)) in tasks:
                continue
            needs = tuple(
                tasks[other, run.stages[other].seed_of(seed)] for other in stage.needs(run.stages)
            )
            content = {
                "version": VERSION,
                "name": name,
                "seed": own,
                "stage": parse.plain(stage, fingerprint=True),
                "reads": _read_config(run, stage),
                "data": {**splits.fingerprints(own, stage), "config": described},
                "scores": parse.plain(run.scores, fingerprint=True) if stage.is_measured() else {},
                "needs": {task.name: task.fingerprint for task in needs},
            }
            mark = fingerprint.of_json(content)
            folder = proof.folder_of(workdir, name, own, mark)
            tasks[name, own] = Task(name, own, stage, mark, folder, needs)
    return list(tasks.values())


def _read_config(run: config.Run, stage: config.Stage) -> Any:
    """Configs of other stages that this one reads without needing their artifacts."""
    if isinstance(stage, config.FromCache):
        return parse.plain(run.stages[stage.cache], fingerprint=True)
    return None


def check(run: config.Run, tasks: Sequence[Task], splits: Splits) -> list[Task]:
    """Says all that can be said of the tasks that are not done, before anything is done; gives these.

    A stage is gone through once, for the first seed that it is not done for.

    Raises:
      BadInput: what is done is not whole; or see `kdjax.stages.check`.
    """
    check_rows(run)
    check_effect(run)
    parallel = train.choose(run.parallel, convolutions=run.convolutions)
    stages.check_data(splits)
    to_do: list[Task] = []
    left: dict[tuple[str, int], Artifact] = {}
    checked: dict[str, Artifact] = {}
    for task in tasks:
        if task.done:
            said = Artifact.open(task.folder, task.stage).manifest
            left[task.name, task.seed] = Expected(task.folder, said, task.stage)
            continue
        to_do.append(task)
        if task.name not in checked:
            inputs = {other.name: left[other.name, other.seed] for other in task.needs}
            context = Context(
                run, task.name, task.seed, task.folder, inputs, splits, parallel, ahead=True
            )
            checked[task.name] = stages.check(context, task.stage)
        left[task.name, task.seed] = checked[task.name]
    return to_do


def execute(run: config.Run, tasks: Sequence[Task], splits: Splits) -> None:
    """Does every task that is not done, each from the artifacts of those that it needs.

    Of several processes all train and ask teachers, and the first one does the rest: they share the
    work directory. Runs that share it without knowing of each other may do different tasks at the
    same time, but never the same one.

    Raises:
      BadInput: what is done is not whole; or as `kdjax.stages.check`, before anything is done.
      Busy: another run is at one of the tasks, before anything is done. One that comes to a task
        later is waited for, as is one at a stage that all seeds share.
      BadInput, Diverged, StageFailed, StorageFailed: as `kdjax.stages.run`; what was done before
        stays done.
    """
    parallel = train.choose(run.parallel, convolutions=run.convolutions)
    to_do = check(run, tasks, splits)
    if to_do:
        _ = splits.test_inputs  # one that cannot be decoded is named before anything is trained
    _refuse_busy(to_do)
    for task in tasks:
        if task not in to_do:
            _say(f"{task.title}: done before, skipped")
            if jax.process_index() == 0:
                lock.clear(task.lock)
            continue
        with _alone(task) as held:
            if not _agreed(held is not None and not task.done):
                _say(f"{task.title}: done by another run, skipped")
                continue
            _do(run, task, splits, parallel, held)


def _refuse_busy(tasks: Sequence[Task]) -> None:
    """Looks whether another run is at one of these, on behalf of all processes.

    One that all seeds share is waited for instead: jobs of an array come to it at the same time.
    """
    busy: tuple[Task, lock.Holder] | None = None
    if jax.process_index() == 0:
        for task in tasks:
            if task.stage.seed is None and (holder := lock.holder(task.lock)) is not None:
                busy = task, holder
                break
    if not _agreed(busy is not None):
        return
    if busy is None:
        raise lock.Busy("the first process found another run at what this one was to do")
    task, holder = busy
    raise lock.Busy(
        f"{task.title}: {holder} is at it; run the same command again when it has ended, or stop it "
        f"(its lock is {task.lock})"
    )


@contextlib.contextmanager
def _alone(task: Task) -> Iterator[lock.Lock | None]:
    """Holds the task's lock, by the first of several processes; the others have none.

    Whether the task is still to be done is for the first process to say, see `_agreed`.
    """
    if jax.process_index() != 0:
        yield None
        return
    with lock.held(
        task.lock, waiting=lambda other: _say(f"{task.title}: waiting for {other}")
    ) as held:
        yield held


def _agreed(value: bool) -> bool:
    """What the first process found, for all of them."""
    if jax.process_count() == 1:
        return value
    return bool(multihost_utils.broadcast_one_to_all(np.asarray(value)))


def _do(
    run: config.Run,
    task: Task,
    splits: Splits,
    parallel: train.Parallel,
    held: lock.Lock | None,
) -> None:
    """Runs one stage and finishes its folder; the line of its own is said."""
    if held is not None and held.before is not None:
        _say(f"{task.title}: taken over from {held.before}, which is gone")
    with files.storing(task.folder):
        if (task.folder / stages.MANIFEST).exists():
            _say(f"{task.title}: only its manifest is left; it is run again")
        task.folder.mkdir(parents=True, exist_ok=True)
    inputs = {other.name: Artifact.open(other.folder, other.stage) for other in task.needs}
    begun = time.monotonic()
    context = Context(run, task.name, task.seed, task.folder, inputs, splits, parallel)
    first = jax.process_index() == 0
    said: Mapping[str, Any] = {}
    if first or isinstance(task.stage, config.Training | config.Cache):
        with files.storing(task.folder):
            said = stages.run(context, task.stage)
    seconds = time.monotonic() - begun
    manifest = {
        "stage": task.name,
        "seed": task.seed,
        "config": parse.plain(task.stage),
        "fingerprint": task.fingerprint,
        "upstream": {other.name: other.fingerprint for other in task.needs},
        "data": splits.fingerprints(task.seed, task.stage),
        "wall_seconds": round(seconds, 2),
        **said,
    }
    if held is not None:
        held.check()
        stages.finish(task.folder, manifest)
    if jax.process_count() > 1:  # what the next stage reads is there for every process
        multihost_utils.sync_global_devices(task.fingerprint)
    _say(f"{task.title}: {seconds:.1f} s{_result(said)}")


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
        raise BadInput("--replay_step", "name the stage, and it alone, with --stages=NAME")
    if jax.process_count() > 1:
        raise BadInput("--replay_step", "it is for one process", "the batch is the same there")
    task = next(task for task in tasks if task.name == only[0])
    if not isinstance(task.stage, config.Training):
        raise BadInput("--replay_step", f"config.stages.{task.name} does not train")
    if not 1 <= step <= task.stage.steps:
        raise BadInput("--replay_step", f"{step} is not a step of 1 to {task.stage.steps}")
    for other in task.needs:
        if not other.done:
            raise BadInput(
                "--replay_step",
                f"{task.name} needs {other.name} (seed {other.seed}), which is not done",
                "run the same command without --replay_step first",
            )
    inputs = {other.name: Artifact.open(other.folder, other.stage) for other in task.needs}
    parallel = train.choose(run.parallel, convolutions=run.convolutions)
    context = Context(
        run, task.name, task.seed, task.folder, inputs, splits, parallel, replay_step=step
    )
    try:
        stages.run(context, task.stage)
    except train.Replayed as found:
        return [f"{task.name} (seed {task.seed}), {found.lines[0]}", *found.lines[1:]]
    raise AssertionError(f"{task.name} trains and was not replayed")


class Finished(NamedTuple):
    """All that is done of a config in a work directory, whoever did it and when.

    Attributes:
      manifests: of the tasks that are done, seed by seed in the order of the stages.
      missing: `{"stage": ..., "seed": ..., "why": ...}` of those that are not, or are not whole.
    """

    manifests: list[tuple[Task, Mapping[str, Any]]]
    missing: list[dict[str, Any]]

    @property
    def seeds(self) -> list[int]:
        """For which anything is done; the own seed of a stage alone does not count beside others."""
        found = {task.seed for task, _ in self.manifests if task.stage.seed is None}
        return sorted(found or {task.seed for task, _ in self.manifests})


def finished(run: config.Run, workdir: epath.Path, splits: Splits) -> Finished:
    """Looks for every stage of a config, also those that this run was not asked for.

    Likewise for seeds that other runs of the same config have left in the work directory. A cache that
    no stage reads is not missed where it is not there.
    """
    names = order(run)
    missed, asked = _default(run, names), set(run.seeds)
    seeds = sorted(asked | _seeds_in(workdir))
    done: list[tuple[Task, Mapping[str, Any]]] = []
    missing: list[tuple[Task, str]] = []
    for task in _tasks(run, workdir, splits, wanted=names, seeds=seeds):
        why = "not done"
        try:
            manifest = proof.prove(task.folder, fingerprint=task.fingerprint)
        except BadInput as error:
            manifest, why = None, f"not whole: {error}"
        if manifest is not None:
            done.append((task, manifest))
        elif why != "not done" or task.name in missed:
            missing.append((task, why))
    kept = asked | {task.seed for task, _ in done if task.stage.seed is None}
    said = [
        {"stage": task.name, "seed": task.seed, "why": why}
        for task, why in missing
        if task.seed in kept or task.stage.seed is not None
    ]
    return Finished(done, said)


def _seeds_in(workdir: epath.Path) -> set[int]:
    folder = workdir / "stages"
    inside = [proof.folder_name(p.name) for p in folder.iterdir()] if folder.is_dir() else []
    return {parts[1] for parts in inside if parts is not None}


def first_said(
    manifests: Sequence[tuple[Task, Mapping[str, Any]]], key: str
) -> dict[str, dict[str, Any]]:
    """`{stage: {"seed": seed, **manifest[key]}}` for the first seed of each that is done.

    What describes one model and has no mean over seeds, as `kdjax.report.write` takes it.

    Args:
      manifests: of what is done, see `Finished`.
      key: of a mapping in the manifests of some stages, such as `shrunk`.
    """
    found: dict[str, dict[str, Any]] = {}
    for task, manifest in manifests:
        if key in manifest:
            found.setdefault(task.name, {"seed": task.seed, **manifest[key]})
    return found


def twins(run: config.Run) -> list[tuple[str, str]]:
    """`(student, scratch)`: stages that train one architecture, with a teacher and on labels alone.

    A student is a `distill`, or a `finetune` that begins from an encoder; the scratch network is a
    `finetune` that begins from nothing, on the labels that the student may use. As in the config.
    """

    def encoder_of(stage: config.Stage) -> config.Encoder | None:
        match stage:
            case config.Pretrain() | config.DistillEncoder():
                return stage.encoder
            case config.Finetune() | config.Distill():
                below = None if stage.start_from is None else run.stages.get(stage.start_from)
                return stage.encoder if below is None else encoder_of(below)
        return None  # shrunk, quantized: another network

    students = [name for name, stage in run.stages.items() if isinstance(stage, config.Distill)]
    students += [
        name
        for name, stage in run.stages.items()
        if isinstance(stage, config.Finetune) and stage.start_from is not None
    ]
    return [
        (name, other)
        for name in students
        for other, scratch in run.stages.items()
        if isinstance(scratch, config.Finetune)
        and scratch.start_from is None
        and scratch.encoder == encoder_of(run.stages[name])
        and _labels(run, scratch) == _labels(run, run.stages[name])
    ]


def _result(said: Mapping[str, Any]) -> str:
    shown = ""
    for row in said.get("rows", ()):
        if (name := row["primary"]) is not None:
            score = row["scores"][name]
            value = report.Score(score["value"], fraction=score["fraction"]).shown
            shown += f", {report.title(name)} {value} ({row['stage']})"
    return shown


def _say(line: str) -> None:
    if jax.process_index() == 0:
        print(line, file=sys.stderr, flush=True)
