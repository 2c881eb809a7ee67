"""The teacher's logits of every view of every training example, on disk."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from kdjax import config, keys, parse, teacher, views
from kdjax.data import Dataset
from kdjax.stages import build
from kdjax.stages.artifact import Artifact
from kdjax.stages.context import Context
from kdjax.stages.model import Spec, load, logits
from kdjax.types import BadInput


def binding(
    c: config.Cache, teacher_artifact: Artifact, dataset: Dataset, *, stream: str, seed: int
) -> dict[str, Any]:
    """What the logits are of, as plain data: a reader must expect exactly this."""
    return {
        "teacher": teacher_artifact.manifest["variables"],
        "model": teacher_artifact.manifest["model"],
        "recipe": parse.plain(c.recipe),
        "recipes_version": views.RECIPES_VERSION,
        "dataset": dataset.fingerprint,
        "examples": len(dataset),
        "stream": stream,
        "seed": seed,
        "views": c.views,
        "dtype": c.dtype,
        "jax": jax.__version__,
    }


def run(context: Context, c: config.Cache) -> Mapping[str, Any]:
    """Runs the teacher once over `c.views` views; statistics frozen, labels unused."""
    if c.views < 1:
        raise BadInput(f"config.stages.{context.name}.views: {c.views} is not positive")
    artifact = context.inputs[c.teacher]
    spec, variables = load(artifact, field=f"config.stages.{context.name}.teacher")
    dataset = context.splits.train
    ask = jax.jit(view_logits(spec, c, context.run.data, stream=context.name))
    variables, key = jax.device_put((variables, context.key))

    def logits_of(rows: np.ndarray, view: int) -> np.ndarray:
        padded = np.pad(rows, (0, c.batch - len(rows)), mode="edge")  # one shape, one program
        images, ids = dataset.read(padded), dataset.ids[padded]
        numbers = np.full(len(padded), view, np.uint32)
        return np.asarray(ask(variables, key, images, ids, numbers))[: len(rows)]

    teacher.write(
        context.folder / "cache",
        ids=dataset.ids,
        views=c.views,
        classes=spec.classes,
        dtype=c.dtype,
        logits_of=logits_of,
        batch=c.batch,
        binding=binding(c, artifact, dataset, stream=context.name, seed=context.seed),
    )
    return {"views": c.views, "examples": len(dataset)}


def view_logits(spec: Spec, c: config.Cache, d: config.Data, *, stream: str):
    """`(variables, key of the run, images, ids, views) -> the teacher's logits` of those views."""
    recipe = build.recipe(c.recipe, d, size=spec.size)
    model = spec.module()

    def ask(variables, key, images, ids, numbers):
        seen = views.batch_views(recipe, keys.stream(key, stream), numbers, ids, images)
        return logits(model, variables, seen)

    return ask
