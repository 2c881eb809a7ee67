"""A student that learns from the teacher on exactly the views that the teacher saw."""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from kdjax import config, teacher, train
from kdjax.losses import cross_entropy, kd_kl, kd_kl_top_k
from kdjax.stages import build
from kdjax.stages.begin import begin
from kdjax.stages.context import Context
from kdjax.stages.finetune import classify, leave, leave_sweep, ready
from kdjax.stages.fit import fit
from kdjax.stages.lesson import lesson
from kdjax.stages.model import Spec
from kdjax.stages.source import weights_of
from kdjax.types import BadInput, Batch

Scalar = float | Float[Array, ""]


def kd_term(
    signal: teacher.Signal,
    *,
    temperature: Scalar,
    teacher_weights: Float[Array, " teachers"] | None = None,
) -> Callable[[Mapping[str, Array], Batch], Float[Array, " batch"]]:
    """The term of a signal: `(outputs, batch) -> KL` to what the teacher says.

    Args:
      signal: that a batch has the parts of.
      temperature: of both softmaxes. One of its own, if the signal is a top k.
      teacher_weights: of teachers that are kept apart: the weighted sum of their losses.

    Raises:
      BadInput: the signal has no classes.
    """
    match signal:
        case teacher.Logits():

            def one(logits, parts):
                return kd_kl(logits, parts["teacher_logits"], temperature=temperature)

        case teacher.TopK(temperatures=temperatures):

            def one(logits, parts):
                which = jnp.argmin(jnp.abs(jnp.asarray(temperatures) - temperature))
                return kd_kl_top_k(
                    logits,
                    parts["teacher_indices"],
                    parts["teacher_log_probs"],
                    parts["teacher_log_tail"][..., which],
                    temperature=temperature,
                )

        case teacher.Apart(of=of) if teacher_weights is not None:
            term = kd_term(of, temperature=temperature)

            def apart(outputs, batch):
                parts = {name: batch[name] for name in signal.parts()}
                each = jax.vmap(lambda mine: term(outputs, mine), in_axes=1)(parts)
                return (teacher_weights[:, None] * each).sum(0)

            return apart
        case _:
            raise BadInput(
                "an embedding says nothing of classes; a stage distill_encoder learns it"
            )
    return lambda outputs, batch: one(outputs["logits"], batch)


def objective(
    model: nn.Module,
    *,
    signal: teacher.Signal,
    temperature: Scalar,
    kd_weight: Scalar,
    ce_weight: Scalar,
    teacher_weights: Float[Array, " teachers"] | None = None,
    axis_name: str | None = None,
) -> train.Objective:
    """`kd_weight` x KL to the teacher, and `ce_weight` x cross-entropy of the labelled rows.

    Where a batch is mixed, the cross-entropy is that with both labels, in their shares.
    """

    def ce(outputs, batch):
        losses, shown = cross_entropy(outputs["logits"], batch["label"]), batch["label"] >= 0
        if "weight" not in batch:
            return losses, shown
        weight, other = batch["weight"], batch["partner_label"]
        losses = jnp.concatenate([losses, cross_entropy(outputs["logits"], other)])
        return losses, jnp.concatenate([weight * shown, (1.0 - weight) * (other >= 0)])

    kd = kd_term(signal, temperature=temperature, teacher_weights=teacher_weights)
    terms = {"kd": (kd_weight, kd), "ce": (ce_weight, ce)}
    return train.weigh(classify(model), terms, axis_name=axis_name)


def run(context: Context, c: config.Distill) -> Mapping[str, Any]:
    """Trains the student, pruning it on the way if asked to, and measures the result."""
    path = f"config.stages.{context.name}"
    taught = lesson(context, c)
    start = begin(context, start_from=c.start_from, encoder=c.encoder, size=taught.size, path=path)
    spec, variables, tx = ready(context, c, start)
    axis_name = context.parallel.axis_name
    settings = _settings(c, taught.source.signal, spec, path)
    model = spec.module(build.compute(c, axis_name))
    teacher_weights = _teacher_weights(c, taught.source.c, path)

    def of_one(mine: Mapping[str, Scalar]) -> train.Objective:
        return objective(
            model,
            signal=taught.source.signal,
            temperature=mine["temperature"],
            kd_weight=mine["kd_weight"],
            ce_weight=mine["ce_weight"],
            teacher_weights=teacher_weights,
            axis_name=axis_name,
        )

    if c.sweep:
        by = c.sweep_by
        unroll = by == "unroll" or (by == "auto" and jax.default_backend() == "cpu")
        objectives = train.Sweep(of_one, settings, unroll)
    else:
        objectives = of_one({name: float(values[0]) for name, values in settings.items()})
    state = fit(
        context,
        c,
        variables=variables,
        objective=objectives,
        tx=tx,
        dataset=context.splits.partly_labelled(context.seed),
        views=taught.views,
        resident=taught.resident,
        join=taught.join,
        partner_rows=taught.source.partner_rows,
    )
    if c.sweep:
        students = [train.student(state, i).variables for i in range(len(c.sweep))]
        said = [{name: float(v[i]) for name, v in settings.items()} for i in range(len(c.sweep))]
        return leave_sweep(context, spec, students, said)
    return leave(context, spec, state)


def _settings(
    c: config.Distill, signal: teacher.Signal, spec: Spec, path: str
) -> dict[str, Float[np.ndarray, " students"]]:
    """Temperature and weights of each student, one where there is no sweep.

    Raises:
      BadInput: the signal does not fit these students.
    """
    of = signal.of if isinstance(signal, teacher.Apart) else signal
    if not isinstance(of, teacher.Logits | teacher.TopK):
        raise BadInput(
            f"{path}.cache: {c.cache} keeps an embedding, which says nothing of classes; learn it in "
            "a stage of kind distill_encoder"
        )
    if of.classes != spec.classes:
        raise BadInput(
            f"{path}.cache: the teacher of {c.cache} has {of.classes} classes, the student has "
            f"{spec.classes}"
        )
    found: dict[str, list[float]] = {"temperature": [], "kd_weight": [], "ce_weight": []}
    for i, knobs in enumerate(c.sweep or (config.Knobs(),)):
        for name, values in found.items():
            own = getattr(knobs, name)
            values.append(getattr(c, name) if own is None else own)
        where = f"{path}.sweep[{i}].temperature" if c.sweep else f"{path}.temperature"
        temperature = found["temperature"][-1]
        if temperature <= 0:
            raise BadInput(f"{where}: {temperature} is not above zero")
        if isinstance(of, teacher.TopK) and temperature not in of.temperatures:
            known = ", ".join(map(str, of.temperatures))
            raise BadInput(
                f"{where}: {c.cache} keeps the tail at temperature {known}, not at {temperature}; "
                f"add it to config.stages.{c.cache}.signal.temperatures"
            )
    return {name: np.asarray(values, np.float32) for name, values in found.items()}


def _teacher_weights(
    c: config.Distill, cached: config.Cache, path: str
) -> Float[Array, " teachers"] | None:
    apart = cached.together == "apart" and len(cached.teachers) > 1
    if not apart and c.teacher_weights is not None:
        raise BadInput(
            f"{path}.teacher_weights: {c.cache} keeps no teachers apart; set its together=apart"
        )
    return weights_of(cached, c.teacher_weights, f"{path}.teacher_weights") if apart else None
