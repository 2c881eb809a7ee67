"""What is done of a config in a work directory, as the report takes it."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from etils import epath

from kdjax import config
from kdjax.artifacts import proof
from kdjax.contexts import Splits
from kdjax.pipeline.graph import default, labels, order
from kdjax.pipeline.tasks import Task, tasks_of
from kdjax.types import BadInput


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
    missed, asked = default(run, names), set(run.seeds)
    seeds = sorted(asked | _seeds_in(workdir))
    done: list[tuple[Task, Mapping[str, Any]]] = []
    missing: list[tuple[Task, str]] = []
    for task in tasks_of(run, workdir, splits, wanted=names, seeds=seeds):
        why = "not done"
        try:
            manifest = proof.prove(task.folder, fingerprint=task.fingerprint)
        except BadInput as error:
            manifest, why = None, f"not whole: {error}"
        if manifest is not None and not task.is_measured_by(manifest):
            manifest, why = None, "measured by other scores"
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
    `finetune` that begins from nothing, or with layers that have seen no label, on the labels that the
    student may use; or, if it looks at none itself, that its teachers may. As in the config.
    """

    def encoder_of(stage: config.Stage) -> config.Encoder | None:
        match stage:
            case config.Pretrain() | config.DistillEncoder() | config.Pretrained():
                return stage.encoder
            case config.Finetune() | config.Distill():
                below = None if stage.start_from is None else run.stages.get(stage.start_from)
                return stage.encoder if below is None else encoder_of(below)
        return None  # shrunk, quantized: another network

    def architecture_of(stage: config.Stage) -> config.Encoder | None:
        encoder = encoder_of(stage)
        return None if encoder is None else encoder.architecture

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
        and scratch.encoder is not None
        and _knows_no_label(run, scratch.encoder)
        and scratch.encoder.architecture == architecture_of(run.stages[name])
        and labels(run, scratch) == _labels_behind(run, run.stages[name])
    ]


def _knows_no_label(run: config.Run, encoder: config.Encoder) -> bool:
    """Whether an encoder begins from nothing, or with layers that have seen no label of the data."""
    if (begun := encoder.begun_from) is None:
        return encoder.weights is None
    return isinstance(run.stages.get(begun.stage), config.Pretrain | config.Pretrained)


def _labels_behind(run: config.Run, stage: config.Stage) -> tuple[int | None, float | None]:
    """Those that a stage may use; of one that looks at no label those of its teachers, if alike."""
    if isinstance(stage, config.Distill) and stage.ce_weight == 0 and not stage.sweep:
        cache = run.stages.get(stage.cache)
        names = cache.teachers if isinstance(cache, config.Cache) else (stage.cache,)
        teachers = [run.stages[name] for name in names if name in run.stages]
        if len(found := {_labels_behind(run, teacher) for teacher in teachers}) == 1:
            return found.pop()
    return labels(run, stage)
