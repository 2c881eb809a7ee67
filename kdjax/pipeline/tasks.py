"""What there is to do: every stage for every seed, under the fingerprint of all that it comes from."""

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from etils import epath

from kdjax import config, fingerprint, parse, spelling
from kdjax.artifacts import proof
from kdjax.checks import sizes
from kdjax.config.fields import parts
from kdjax.contexts import Splits
from kdjax.measuring.measure import AGREEMENT
from kdjax.pipeline.graph import default, order
from kdjax.types import BadInput, under

VERSION = 7
"""Part of every fingerprint: raised when stages compute other things from the same config."""


@dataclasses.dataclass(frozen=True)
class Task:
    """One stage for one seed.

    Attributes:
      name: of the stage.
      seed: that it is run for, see `config.Stage`.
      stage: its config.
      fingerprint: of its config, its data and all it is made from.
      folder: where its artifact is, or will be; the fingerprint is part of its name, so that
        another config never finds, resumes or overwrites this one's.
      needs: the tasks that it reads.
      scores: fingerprints, by name, of the user's scores that the rows of a model are to have, and of the
        one that it is compared with. They are no part of the model's fingerprint: where they change, it
        is measured again and not made again.
      reference: the task whose model it is compared with, None without one and of itself.
    """

    name: str
    seed: int
    stage: config.Stage
    fingerprint: str
    folder: epath.Path
    needs: tuple["Task", ...]
    scores: Mapping[str, str]
    reference: "Task | None" = None

    @property
    def done(self) -> bool:
        """The artifact is there and whole, as far as names, sizes and small files can tell.

        Raises:
          BadInput: it is there and not whole; the line names the file and the mend.
        """
        return proof.prove(self.folder, fingerprint=self.fingerprint) is not None

    def is_measured_by(self, manifest: Mapping[str, Any]) -> bool:
        """Whether the rows in the manifest that it has left have the scores that are asked for."""
        return manifest.get("scores", {}) == self.scores

    @property
    def is_measured(self) -> bool:
        """Whether it has left such a manifest; nothing is to be measured of a stage without a model."""
        manifest = proof.read(self.folder)
        return manifest is not None and self.is_measured_by(manifest)

    @property
    def title(self) -> str:
        """As messages name it."""
        return f"{self.name} (seed {self.seed})"

    @property
    def lock(self) -> epath.Path:
        """Held while it is done."""
        return proof.lock_of(self.folder)


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
    wanted = set(default(run, names) if only is None else only)
    for name in sorted(wanted - set(names)):
        raise BadInput("--stages", f"there is no stage {name!r}", spelling.suggestion(name, names))
    for name in reversed(names):
        if name in wanted:
            wanted |= set(run.needs(name))

    sizes.check_data(splits)
    splits.shown(run.seeds[0])  # too few labels of a class: said before anything is trained
    for name in names:
        if name not in wanted:
            continue
        stage = run.stages[name]
        sizes.check(run, name, splits)
        if isinstance(stage, config.Labels):
            splits.shown(run.seeds[0], stage, path=f"config.stages.{name}")
    return tasks_of(run, workdir, splits, wanted=wanted, seeds=run.seeds)


def tasks_of(
    run: config.Run,
    workdir: epath.Path,
    splits: Splits,
    *,
    wanted: Collection[str],
    seeds: Sequence[int],
) -> list[Task]:
    """The tasks of the stages that are `wanted`, with all that they need, for each of these seeds."""
    names = order(run)
    described = parse.plain(run.data, fingerprint=True)
    scores = parse.plain(run.scores, fingerprint=True)
    marks = {name: fingerprint.of_json(score) for name, score in scores.items()}
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
            reference = None
            if run.is_compared(name) and (other := run.reference) not in (None, name):
                reference = tasks[other, run.stages[other].seed_of(seed)]
            asked = {**scores, **_compared(run, name, reference)}
            content = {
                "version": VERSION,
                "name": name,
                "seed": own,
                "stage": parse.plain(stage, fingerprint=True),
                "reads": _read_config(run, stage),
                "data": {**splits.fingerprints(own, stage), "config": described},
                "scores": asked if stage.is_measured() and not stage.leaves_model() else {},
                "needs": {task.name: task.fingerprint for task in needs},
            }
            if imported := _imported(stage, f"config.stages.{name}"):
                content["weights"] = imported
            mark = fingerprint.of_json(content)
            folder = proof.folder_of(workdir, name, own, mark)
            tasks[name, own] = Task(
                name,
                own,
                stage,
                mark,
                folder,
                needs,
                {**marks, **_compared(run, name, reference)} if stage.leaves_model() else {},
                reference,
            )
    return list(tasks.values())


def _compared(run: config.Run, name: str, reference: Task | None) -> dict[str, str]:
    """What `Task.scores` says of the agreement with the reference; of itself that it is one."""
    if reference is not None:
        return {AGREEMENT: reference.fingerprint}
    return {AGREEMENT: "its own"} if name == run.reference else {}


def _imported(stage: config.Stage, path: str) -> dict[str, Any]:
    """What decides the weights that a stage begins with, by the path of the encoder.

    Raises:
      BadInput: they are not there, or not whole.
    """
    found = {}
    for at, encoder in parts(stage, config.Encoder):
        weights = encoder.imported or encoder.begun_from
        if weights is not None:
            with under(f"{path}.{at}", encoder.weights_field):
                found[at] = weights.identity()
    return found


def _read_config(run: config.Run, stage: config.Stage) -> Any:
    """Configs of other stages that this one reads without needing their artifacts."""
    if isinstance(stage, config.FromCache):
        return parse.plain(run.stages[stage.cache], fingerprint=True)
    return None
