"""A student that learns from the teacher on exactly the views that the teacher saw."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from kdjax import config, keys, models, prune, teacher, train, tree, views
from kdjax.losses import cross_entropy, kd_kl
from kdjax.stages import build, cache
from kdjax.stages.artifact import Artifact
from kdjax.stages.context import Context
from kdjax.stages.finetune import classify, leave
from kdjax.stages.fit import fit, model_key
from kdjax.stages.model import Spec, load, logits
from kdjax.types import BadInput, Variables


def objective(
    model: models.Classifier,
    *,
    temperature: float,
    kd_weight: float,
    ce_weight: float,
    axis_name: str | None = None,
) -> train.Objective:
    """`kd_weight` x KL to `teacher_logits`, and `ce_weight` x cross-entropy of the labelled rows."""

    def kd(outputs, batch):
        return kd_kl(outputs["logits"], batch["teacher_logits"], temperature=temperature)

    def ce(outputs, batch):
        return cross_entropy(outputs["logits"], batch["label"]), batch["label"] >= 0

    terms = {"kd": (kd_weight, kd), "ce": (ce_weight, ce)}
    return train.weigh(classify(model), terms, axis_name=axis_name)


def cached_view(
    recipe: build.Recipe, stream: str, *, count: int, live_teacher: models.Classifier | None = None
):
    """View `epoch % count` of each example, with the teacher's logits of it.

    The logits are those that the feed brings, those that live on the device, or, with
    `live_teacher`, what that model says of the view under `resident["teacher"]`.
    """

    def draw(batch, resident, key):
        number = batch["epoch"] % jnp.uint32(count)
        stream_key = keys.stream(key, stream)
        image = views.batch_views(recipe, stream_key, number, batch["id"], batch["image"])
        if live_teacher is not None:
            signal = logits(live_teacher, resident["teacher"], image)
        elif "teacher_logits" in batch:
            signal = batch["teacher_logits"]
        else:
            signal = resident["teacher_logits"][number, batch["row"]]
        return {"image": image, "label": batch["label"], "teacher_logits": signal}

    return draw


def run(context: Context, c: config.Distill) -> Mapping[str, Any]:
    """Trains the student, pruning it on the way if asked to, and measures the result."""
    path = f"config.stages.{context.name}"
    cached = context.run.stages[c.cache]
    if not isinstance(cached, config.Cache):
        raise BadInput(f"{path}.cache: {c.cache} is not a stage of kind cache")
    dataset = context.splits.partly_labelled(context.seed)
    # As the cache stage has it: a view is what the teacher saw, at the teacher's own size.
    asked = f"config.stages.{c.cache}.teacher"
    size = cached.recipe.size or Spec.of(context.inputs[cached.teacher], field=asked).size
    spec, variables = _start(context, c, path, size=size)
    axis_name = context.parallel.axis_name

    signals: dict[str, Any] = {}
    live_teacher = None
    if c.live:
        teacher_spec, teacher_variables = load(context.inputs[cached.teacher], field=asked)
        live_teacher = teacher_spec.module()
        signals["resident"] = {"teacher": teacher_variables}
    else:
        # Derived from the teacher and the data at hand, never from the cache itself.
        expected = cache.binding(
            cached,
            context.inputs[cached.teacher],
            context.splits.train,
            stream=c.cache,
            seed=context.seed,
        )
        opened = teacher.TeacherCache.open(
            context.inputs[c.cache].folder / "cache", expected=expected
        )
        signals["join_resident"] = lambda dataset: {
            "teacher_logits": opened.logits[:, opened.rows(dataset.ids)]
        }
        signals["join_stream"] = lambda ids, epochs: {
            "teacher_logits": opened.read(ids, epochs % np.uint32(cached.views))
        }

    state = fit(
        context,
        c,
        variables=variables,
        objective=objective(
            spec.module(build.compute(c, axis_name)),
            temperature=c.temperature,
            kd_weight=c.kd_weight,
            ce_weight=c.ce_weight,
            axis_name=axis_name,
        ),
        tx=build.optimizer(c, c.prune, path=path),
        dataset=dataset,
        views=cached_view(
            build.recipe(cached.recipe, context.run.data, size=size),
            c.cache,
            count=cached.views,
            live_teacher=live_teacher,
        ),
        **signals,
    )
    masks = prune.find_masks(state.opt_state)
    if masks is None:
        return leave(context, spec, state.variables)
    pruned = tree.size(masks) - tree.nonzero(masks)
    left = leave(context, spec, state.variables, sparsity=pruned / tree.size(masks))
    # Read back: what counts is what a later stage will find.
    kept = Artifact(context.folder, left, c)
    restored = load(kept, field=path)[1]["params"]
    zeros = tree.size(restored) - tree.nonzero(restored)
    if zeros < pruned:
        raise RuntimeError(
            f"{context.name}: {pruned} weights were pruned, {zeros} are zero on disk"
        )
    return {**left, "pruned": pruned, "prunable": tree.size(masks), "zeros": zeros}


def _start(context: Context, c: config.Distill, path: str, *, size: int) -> tuple[Spec, Variables]:
    """The student and its first parameters."""
    match c.start_from, c.encoder:
        case str(name), None:
            spec, variables = load(context.inputs[name], field=f"{path}.start_from")
            if spec.size != size:
                raise BadInput(
                    f"{path}.start_from: {name} sees {spec.size} pixels, the views of {c.cache} "
                    f"have {size}"
                )
            return spec, variables
        case None, encoder if encoder is not None:
            spec = Spec.new(encoder, context.splits.train, context.run.data, size=size)
            return spec, spec.init(model_key(context))
    raise BadInput(f"{path}: give one of start_from (a stage) and encoder (a model)")
