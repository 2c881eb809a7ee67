"""The numbers of a distilled student: temperatures and weights, fixed, of a sweep, or over the steps."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from kdjax import config, tasks, teacher, train
from kdjax.artifacts.model import Spec
from kdjax.teacher_targets.source import Source, weights_of
from kdjax.types import BadInput

_KNOBS = ("temperature", "kd_weight", "ce_weight")


def check_signal(c: config.Distill, source: Source, spec: Spec, path: str) -> None:
    """Raises `BadInput` where the signal does not fit the student or the loss."""
    signal, task = source.signal, spec.task
    of = signal.of if isinstance(signal, teacher.Apart) else signal
    of = of.of if isinstance(of, teacher.Positions) else of
    if source.of_features:
        raise BadInput(
            f"{path}.cache",
            f"{c.cache} keeps an embedding, the features of an encoder, and not the answers of its "
            "teacher",
            "learn it in a stage of kind distill_encoder",
        )
    if fault := task.misfit(signal, c.cache, positions=spec.positions):
        raise BadInput(f"{path}.cache", fault)
    if task.loss in c.features:
        raise BadInput(
            f"{path}.features.{task.loss}", "the task has a term of this name", "give another"
        )
    _check_softmaxes(c, task, path)
    if isinstance(of, teacher.TopK):
        mend = f"set config.stages.{c.cache}.signal.name=logits"
        if not c.logits.takes_top_k:
            raise BadInput(
                f"{path}.logits",
                f"{c.logits.name} needs all logits, and {c.cache} keeps a top k",
                mend,
            )
        if c.standardize:
            raise BadInput(
                f"{path}.standardize", f"it needs all logits, and {c.cache} keeps a top k", mend
            )
        if isinstance(c.temperature, config.Ramp):
            raise BadInput(
                f"{path}.temperature",
                f"{c.cache} keeps the tail of a top k at fixed temperatures",
                f"give one of them, or {mend}",
            )


def _check_softmaxes(c: config.Distill, task: tasks.Task, path: str) -> None:
    """Raises `BadInput` where a field of softmaxes is given to a student that has none."""
    usual = {field.name: field.default for field in dataclasses.fields(c)}
    for name in ("logits", "standardize", "temperature"):
        if getattr(c, name) != usual[name]:
            task.classes_of_answer(f"{path}.{name}")
    for i, own in enumerate(c.sweep):
        if own.temperature is not None:
            task.classes_of_answer(f"{path}.sweep[{i}].temperature")


def numbers(c: config.Distill) -> dict[str, train.Number]:
    """Temperature and weights of a student, of which some may change over the steps."""
    found: dict[str, train.Number] = {}
    for name in _KNOBS:
        number = config.over_steps(getattr(c, name), steps=c.steps)
        # In float32, as those of a sweep are.
        found[name] = number if callable(number) else float(np.float32(number))
    return found


def settings(
    c: config.Distill, signal: teacher.Signal, path: str
) -> dict[str, Float[np.ndarray, " students"]]:
    """What the students of a sweep have of their own; what is a schedule to all is not in it.

    Raises:
      BadInput: a temperature is not to be had.
    """
    of = signal.of if isinstance(signal, teacher.Apart) else signal
    of = of.of if isinstance(of, teacher.Positions) else of
    found: dict[str, np.ndarray] = {}
    for name in _KNOBS:
        values = [getattr(knobs, name) for knobs in c.sweep or (config.Hyperparameters(),)]
        values = [getattr(c, name) if value is None else value for value in values]
        if any(isinstance(value, config.Ramp) for value in values):
            continue  # of all students
        found[name] = np.asarray(values, np.float32)
        if name != "temperature":
            continue
        for i, temperature in enumerate(values):
            where = f"{path}.sweep[{i}].temperature" if c.sweep else f"{path}.temperature"
            if isinstance(of, teacher.TopK) and temperature not in of.temperatures:
                known = ", ".join(map(str, of.temperatures))
                raise BadInput(
                    where,
                    f"{c.cache} keeps the tail at temperature {known}, not at {temperature}",
                    f"add it to config.stages.{c.cache}.signal.temperatures",
                )
    return found


def teacher_shares(c: config.Distill, cached: config.Cache, path: str) -> list[train.Number]:
    """Of the teachers that are kept apart, one in all at every step; none where there are none."""
    field, given = f"{path}.teacher_weights", c.teacher_weights
    if cached.together != "apart" or len(cached.teachers) < 2:
        if given is not None:
            raise BadInput(field, f"{c.cache} keeps no teachers apart", "set its together=apart")
        return []
    fixed = [weight for weight in given or () if not isinstance(weight, config.Ramp)]
    if given is None or len(fixed) == len(given):
        return list(weights_of(cached, None if given is None else tuple(fixed), field))
    each = [config.over_steps(weight, steps=c.steps) for weight in given]

    def all_at(step) -> Float[Array, " teachers"]:
        return jnp.stack([jnp.asarray(train.at(number, step), jnp.float32) for number in each])

    with jax.ensure_compile_time_eval():
        over = np.asarray(jax.vmap(all_at)(jnp.arange(c.steps)))
    if len(given) != len(cached.teachers) or over.min() < 0 or over.sum(1).min() <= 0:
        raise BadInput(
            field,
            f"give each of the {len(cached.teachers)} teachers a weight that is never negative, and "
            "not all of them zero at one step",
        )

    def share(i: int) -> optax.Schedule:
        return lambda step: all_at(step)[i] / all_at(step).sum()

    return [share(i) for i in range(len(each))]
