"""The stages of a run as a graph: what each needs, and whether that can be."""

import graphlib
import itertools
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence

from kdjax import config, spelling
from kdjax.config.fields import parts
from kdjax.types import BadInput

_LONGEST_NAME = 80
"""Characters of a stage's name: with its seed, its fingerprint and a suffix it is the name of a file."""


_ALL = ((None, None), (None, 1.0))
"""Labels."""


def order(run: config.Run) -> list[str]:
    """The stages, each after what it needs, otherwise as they stand in the config.

    Raises:
      BadInput: a stage names one that is not there, or they need each other in a circle.
    """
    check_names(run.stages)
    _check_reference(run)
    needs = {name: run.needs(name) for name in run.stages}
    for name, stage in run.stages.items():
        for field, other in _named(stage):
            if other not in run.stages:
                hint = spelling.suggestion(other, run.stages)
                raise BadInput(
                    f"config.stages.{name}.{field}", f"there is no stage {other!r}", hint
                )
        for other in needs[name]:
            if other not in run.stages:
                raise BadInput(
                    f"config.stages.{name}", f"it needs {other!r}, and there is no such stage"
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


def _check_reference(run: config.Run) -> None:
    """Raises `BadInput` where the reference is no stage that leaves a model."""
    if (name := run.reference) is None:
        return
    if name not in run.stages:
        hint = spelling.suggestion(name, run.stages)
        raise BadInput("config.reference", f"there is no stage {name!r}", hint)
    stage = run.stages[name]
    if not stage.leaves_model() or getattr(stage, "sweep", None):
        raise BadInput(
            "config.reference",
            f"{name} does not leave one whole model",
            "name a stage that does, such as the teacher",
        )


def default(run: config.Run, names: Sequence[str]) -> list[str]:
    """The stages of a run that names none: all but the caches that no stage reads."""
    read = {other for name in run.stages for other in run.needs(name)}
    caches = {name for name in names if isinstance(run.stages[name], config.Cache)}
    return [name for name in names if name not in caches - read]


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
    if taught and set(run.seeds) != {stage.seed} and labels(run, stage) not in _ALL:
        raise BadInput(
            path,
            f"{stage.seed}, and which labels may be used is drawn by the seed: the stages of another "
            "one would learn the labels of both",
            "leave it out",
        )


def labels(run: config.Run, stage: config.Stage) -> tuple[int | None, float | None]:
    """Which labels a stage may use: `labels_per_class` and `labels_share`, its own or the data's."""
    own: config.Labels = run.data
    if isinstance(stage, config.Labels):
        given = (stage.labels_per_class, stage.labels_share)
        own = run.data if given == (None, None) else stage
    return own.labels_per_class, own.labels_share


def _named(stage: config.Stage) -> Iterator[tuple[str, str]]:
    """`(field, name)` of the stages that a stage names itself."""
    for field in ("start_from", "cache", "model", "sensitivity", "teacher", "reads"):
        match getattr(stage, field, None):
            case str(name):
                yield field, name
            case tuple(names):
                yield from ((f"{field}[{i}]", name) for i, name in enumerate(names))
    for path, found in parts(stage, config.FromStage):
        yield f"{path}.stage", found.stage


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
