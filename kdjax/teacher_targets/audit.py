"""A finished cache against its own teachers, asked again."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath

from kdjax import config, parse, paths, teacher
from kdjax.artifacts import proof
from kdjax.artifacts.artifact import CACHE, MANIFEST, Artifact
from kdjax.artifacts.model import inputs_of
from kdjax.contexts.context import Splits
from kdjax.teacher_targets.source import Source
from kdjax.types import BadFile, BadInput


class Audit(NamedTuple):
    """How far what is stored is from what the teachers say now.

    Attributes:
      samples: pairs of (id, view) that were asked for again.
      difference: largest absolute one, of a logit, log-probability or feature.
      id, view: where it is.
      largest: absolute value that is stored, to see a difference against.
      tolerance: of the difference. By default two steps of the stored dtype at the largest value, of
        which rounding explains a half; for float32 the arithmetic's own 1e-5.
    """

    samples: int
    difference: float
    id: int
    view: int
    largest: float
    tolerance: float


class Reopened(NamedTuple):
    """A finished cache, with what it is made of.

    Attributes:
      splits: the data of its run.
      source: see `Source`.
      cache: what the teachers said.
    """

    splits: Splits
    source: Source
    cache: teacher.TeacherCache


def reopened(
    folder: epath.PathLike, *, data_dir: str | None = None, accept: Sequence[str] = ()
) -> Reopened:
    """A cache from its folder alone, opened as a student would.

    Args:
      folder: of the cache stage, or the cache in it.
      data_dir: where TFDS datasets are prepared, if not where the run had them.
      accept: see `TeacherCache.open`.

    Raises:
      BadInput: it is no cache of a work directory, or it is refused.
    """
    folder = paths.parse(os.fspath(folder), field="folder")
    stage = folder.parent if folder.name == CACHE else folder
    try:
        manifest = proof.read(stage) or {}
        run = parse.parse(config.Run, manifest["run"], f"{stage / MANIFEST}: run")
        name, seed, upstream = (manifest[field] for field in ("stage", "seed", "upstream"))
    except proof.Damaged:
        raise
    except (ValueError, KeyError, TypeError):
        raise BadFile(
            folder,
            "not a finished cache stage of a work directory",
            "name WORKDIR/stages/NAME-seedN-FINGERPRINT",
        ) from None
    data = run.data if data_dir is None else dataclasses.replace(run.data, data_dir=data_dir)
    splits, inputs = Splits(data), _inputs(stage, run, upstream)
    given = next(filter(None, map(inputs_of, inputs.values())), None)
    splits = splits if given is None else splits.given(given)
    source = Source.of(run, name, seed=seed, inputs=inputs, dataset=splits.train)
    cache = teacher.TeacherCache.open(
        stage / CACHE, expected=source.binding(), accept=accept, owner=stage
    )
    return Reopened(splits, source, cache)


def audit(
    folder: epath.PathLike,
    *,
    samples: int,
    seed: int,
    data_dir: str | None = None,
    tolerance: float | None = None,
) -> Audit:
    """Opens a cache as a student would, and asks its teachers for random entries again.

    Args:
      folder: of the cache stage, or the cache in it.
      samples: how many entries, at most all.
      seed: of their choice.
      data_dir: where TFDS datasets are prepared.
      tolerance: of the largest difference, None for what rounding explains.

    Raises:
      BadInput: it is no cache of this work directory, or it is refused.
    """
    if samples < 1:
        raise BadInput("--samples", f"{samples} is not positive")
    splits, source, opened = reopened(folder, data_dir=data_dir, accept=("backend", "jax"))
    dataset = splits.train
    total = len(dataset) * source.c.views
    chosen = np.random.default_rng(seed).choice(total, min(samples, total), replace=False)
    chosen.sort()  # view by view, as the cache is read
    rows, numbers = chosen % len(dataset), (chosen // len(dataset)).astype(np.uint32)

    @jax.jit
    def again(variables, key, batch, stored):
        return source.difference(stored, source.say(variables, batch, key))

    batch = min(source.c.batch, len(chosen))
    key = jax.random.key(source.seed)
    differences, largest = np.empty(len(chosen), np.float32), 0.0
    for first in range(0, len(chosen), batch):
        here = slice(first, first + batch)
        padding = (0, batch - len(rows[here]))
        row, number = (np.pad(x[here], padding, mode="edge") for x in (rows, numbers))
        stored = opened.read(dataset.ids[row], number)
        found = again(source.variables, key, source.read(row, number), stored)
        differences[here] = np.asarray(found)[: len(rows[here])]
        largest = max(largest, *(_largest(values) for values in stored.values()))
    worst = int(np.argmax(np.nan_to_num(differences, nan=np.inf)))
    if tolerance is None:
        step = float(np.finfo(source.c.dtype).eps)
        tolerance = 2.0 * max(step, 1e-5) * largest
    return Audit(
        samples=len(chosen),
        difference=float(differences[worst]),
        id=int(dataset.ids[rows[worst]]),
        view=int(numbers[worst]),
        largest=largest,
        tolerance=tolerance,
    )


def _largest(values: np.ndarray) -> float:
    if not np.issubdtype(values.dtype, np.floating):
        return 0.0
    return float(np.abs(values, where=np.isfinite(values), out=np.zeros_like(values)).max())


def _inputs(stage: epath.Path, run: config.Run, upstream: Mapping[str, Any]) -> dict[str, Artifact]:
    """The artifacts of the teachers, which stand beside that of the cache."""
    found = {}
    for name, fingerprint in upstream.items():
        folder = proof.find(stage.parent.parent, name, fingerprint)
        if folder is None:
            raise BadFile(stage, f"its teacher {name} is gone", "it cannot be asked again")
        found[name] = Artifact.open(folder, run.stages[name])
    return found
