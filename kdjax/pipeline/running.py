"""Doing what is not done, each stage from what those before it have left."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from kdjax import config, files, heap, lock, parse, report, stages, train
from kdjax.artifacts import MANIFEST, Artifact, Expected, finish, restate
from kdjax.checks.coupling import check_rows
from kdjax.checks.effect import check_effect
from kdjax.checks.expected import check_data
from kdjax.contexts import Context, Splits
from kdjax.measuring import measure
from kdjax.measuring.parity import StageFailed
from kdjax.pipeline import workers
from kdjax.pipeline.tasks import Task
from kdjax.types import under

_POLL_SECONDS = 0.2


def check(run: config.Run, tasks: Sequence[Task], splits: Splits) -> list[Task]:
    """Says all that can be said of the tasks that are not done, before anything is done; gives these.

    A stage is gone through once, for the first seed that it is not done for.

    Raises:
      BadInput: what is done is not whole; or see `kdjax.stages.check`.
    """
    check_rows(run)
    check_effect(run)
    parallel = _parallel(run)
    check_data(splits)
    to_do: list[Task] = []
    unmeasured: Task | None = None
    left: dict[tuple[str, int], Artifact] = {}
    checked: dict[str, Artifact] = {}
    for task in tasks:
        if task.done:
            unmeasured = unmeasured or (None if task.is_measured else task)
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
    if (task := unmeasured) is not None:
        context = Context(run, task.name, task.seed, task.folder, {}, splits, parallel, ahead=True)
        measure.check_scores(context)
    return to_do


def _parallel(run: config.Run) -> train.Parallel:
    with under("config"):
        return train.choose(run.parallel, convolutions=run.convolutions)


def execute(
    run: config.Run,
    tasks: Sequence[Task],
    splits: Splits,
    *,
    helpers: workers.Workers | None = None,
) -> None:
    """Does every task that is not done, each from the artifacts of those that it needs.

    Processes that help do what there is to do, side by side, see `help_out`.

    A model that is done, and whose rows have other scores than this run asks for, is measured again.

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
    parallel = _parallel(run)
    to_do = check(run, tasks, splits)
    if to_do:
        _ = splits.test_inputs  # one that cannot be decoded is named before anything is trained
    _refuse_busy(to_do)
    left = to_do
    if helpers is not None and to_do:
        helpers.work()
        left = [task for task in to_do if not task.done]
    for task in tasks:
        if task not in to_do and jax.process_index() == 0:
            _measure(run, task, splits, parallel)
        if task not in left:
            continue
        with _alone(task) as held:
            if doing := _agreed(held is not None and not task.done):
                _do(run, task, splits, parallel, held)
        if not doing:
            _say(f"{task.title}: done by another run, skipped")
            if jax.process_index() == 0 and not task.is_measured:
                _measure(run, task, splits, parallel)


def help_out(run: config.Run, tasks: Sequence[Task], splits: Splits, *, count: int) -> None:
    """One of `count` processes that do side by side what `execute` has checked.

    Each takes the first task that is ready and that nobody is at, until all are done. A model that is
    compared with another one is ready when that one is, or else when another process is at that one:
    then there is time to train it, and it waits before it is measured.

    Raises:
      BadInput, Diverged, StageFailed, StorageFailed: as `kdjax.stages.run`; what was done before
        stays done.
    """
    parallel = _parallel(run)
    left = [task for task in tasks if not task.done]
    while left:
        for task in _ready(left):
            found = lock.take(task.lock)
            if isinstance(found, lock.Lock):
                with contextlib.closing(found):
                    if not task.done:
                        _do(run, task, splits, parallel, found, beside=count)
                break
        else:
            time.sleep(_POLL_SECONDS)
        left = [task for task in left if not task.done]


def _ready(left: Sequence[Task]) -> Iterator[Task]:
    """Those that may be begun, in turn; last those whose reference another process is at.

    Who is at a reference waits for none, so nobody waits for somebody who waits.
    """
    names, later = {task.folder for task in left}, []
    for task in left:
        if task.done or not names.isdisjoint(other.folder for other in task.needs):
            continue
        if task.reference is None or task.reference.folder not in names:
            yield task
        else:
            later.append(task)
    for task in later:
        if task.reference is not None and lock.holder(task.reference.lock) is not None:
            yield task


def _measure(run: config.Run, task: Task, splits: Splits, parallel: train.Parallel) -> None:
    """Finds the rows of what is done again, where this run asks for other scores than they have."""
    if task.is_measured:
        _say(f"{task.title}: done before, skipped")
        lock.clear(task.lock)
        return
    with _alone(task) as held:
        artifact = Artifact.open(task.folder, task.stage)
        if task.is_measured_by(artifact.manifest):
            _say(f"{task.title}: measured by another run, skipped")
            return
        begun = time.monotonic()
        context = Context(
            run, task.name, task.seed, task.folder, {}, splits, parallel, reference=_reference(task)
        )
        with files.storing(task.folder):
            rows = measure.again(context, artifact)
        said = {**artifact.manifest, "rows": rows, "scores": {**task.scores}}
        assert held is not None
        held.check()
        restate(task.folder, said)
    seconds = time.monotonic() - begun
    _say(f"{task.title}: done before, measured by other scores: {seconds:.1f} s{_result(said)}")


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
    *,
    beside: int = 1,
) -> None:
    """Runs one stage and finishes its folder; the line of its own is said.

    `beside`: of so many processes that share the machine.
    """
    if held is not None and held.before is not None:
        _say(f"{task.title}: taken over from {held.before}, which is gone")
    with files.storing(task.folder):
        if (task.folder / MANIFEST).exists():
            _say(f"{task.title}: only its manifest is left; it is run again")
        task.folder.mkdir(parents=True, exist_ok=True)
    inputs = {other.name: Artifact.open(other.folder, other.stage) for other in task.needs}
    begun = time.monotonic()
    context = Context(
        run, task.name, task.seed, task.folder, inputs, splits, parallel, reference=_reference(task)
    )
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
        **({} if splits.frame is None else {"frame": splits.frame}),
        "wall_seconds": round(seconds, 2),
        **({"jobs": beside} if beside > 1 else {}),
        **({"scores": {**task.scores}} if task.scores else {}),
        **said,
    }
    if held is not None:
        held.check()
        finish(task.folder, manifest)
    heap.release()
    if jax.process_count() > 1:  # what the next stage reads is there for every process
        multihost_utils.sync_global_devices(task.fingerprint)
    _say(f"{task.title}: {seconds:.1f} s{_result(said)}")


def _reference(task: Task) -> Callable[[], Artifact] | None:
    """Gives what the model of a task is measured against, and waits for it, see `help_out`.

    It raises StageFailed where whoever was at that one is gone, which may be another run.
    """
    if (other := task.reference) is None:
        return None

    def opened() -> Artifact:
        while not other.done:
            if lock.holder(other.lock) is None and not other.done:
                raise StageFailed(
                    f"{task.title}: {other.title}, with which it is compared, was given up by who was "
                    "at it; run the same command again"
                )
            time.sleep(_POLL_SECONDS)
        return Artifact.open(other.folder, other.stage)

    return opened


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
