"""A student that learns from the teacher on exactly the views that the teacher saw."""

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from kdjax import config, keys, teacher, train
from kdjax.config import PLAIN_KD
from kdjax.stages import build, features
from kdjax.stages.begin import begin
from kdjax.stages.context import Context
from kdjax.stages.finetune import classify, leave, leave_sweep, ready
from kdjax.stages.fit import fit
from kdjax.stages.lesson import lesson
from kdjax.stages.model import Spec
from kdjax.stages.source import weights_of
from kdjax.stages.terms import Scalar, ce_term, kd_term
from kdjax.types import BadInput

_KNOBS = ("temperature", "kd_weight", "ce_weight")


def objective(
    model: nn.Module,
    *,
    signal: teacher.Signal,
    temperature: Scalar,
    kd_weight: Scalar,
    ce_weight: Scalar,
    loss: config.LogitLoss = PLAIN_KD,
    standardize: bool = False,
    teacher_weights: Float[Array, " teachers"] | None = None,
    of_features: Sequence[features.Term] = (),
    axis_name: str | None = None,
) -> train.Objective:
    """The terms of the logits, of the labelled rows and of the features; see `config.Distill`."""
    kd = kd_term(
        signal,
        temperature=temperature,
        loss=loss,
        standardize=standardize,
        teacher_weights=teacher_weights,
        axis_name=axis_name,
    )
    terms = {"kd": (kd_weight, kd), "ce": (ce_weight, ce_term), **features.weighed(of_features)}
    forward = features.forward(model, of_features, axis_name) if of_features else classify(model)
    return train.weigh(forward, terms, axis_name=axis_name)


def run(context: Context, c: config.Distill) -> Mapping[str, Any]:
    """Trains the student, pruning it on the way if asked to, and measures the result."""
    path = f"config.stages.{context.name}"
    taught = lesson(context, c)
    start = begin(context, start_from=c.start_from, encoder=c.encoder, size=taught.size, path=path)
    source, signal = taught.source, taught.source.signal
    _check_signal(c, signal, start.spec, path)
    settings, shares = _settings(c, signal, path), _teacher_weights(c, source.c, path)
    numbers = _numbers(c, path) | {f"teacher {i}": share for i, share in enumerate(shares)}
    of_features = features.of_stage(context, c, spec=start.spec, source=source)
    if of_features:
        taught = features.teach(taught, of_features, stage=context.name)
        start = start._replace(
            variables=features.beside(
                start.variables,
                of_features,
                key=keys.stream(context.key, f"{context.name}/features"),
                examples=len(source.dataset),
            )
        )
    spec, variables, tx = ready(context, c, start)
    axis_name = context.parallel.axis_name
    model = spec.module(build.compute(c, axis_name))

    def of_now(now: Mapping[str, Scalar]) -> train.Objective:
        of_teachers = [jnp.asarray(now[f"teacher {i}"], jnp.float32) for i in range(len(shares))]
        return objective(
            model,
            signal=signal,
            temperature=now["temperature"],
            kd_weight=now["kd_weight"],
            ce_weight=now["ce_weight"],
            loss=c.logits,
            standardize=c.standardize,
            teacher_weights=jnp.stack(of_teachers) if of_teachers else None,
            of_features=of_features,
            axis_name=axis_name,
        )

    if c.sweep:
        by = c.sweep_by
        unroll = by == "unroll" or (by == "auto" and jax.default_backend() == "cpu")
        objectives = train.Sweep(
            lambda mine: train.scheduled(of_now, {**numbers, **mine}), settings, unroll
        )
    else:
        objectives = train.scheduled(of_now, numbers)
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
        partner_rows=source.partner_rows,
    )
    if c.sweep:
        students = [train.student(state, i).variables for i in range(len(c.sweep))]
        said = [{name: float(v[i]) for name, v in settings.items()} for i in range(len(c.sweep))]
        return leave_sweep(context, spec, students, said)
    return leave(context, spec, state)


def _check_signal(c: config.Distill, signal: teacher.Signal, spec: Spec, path: str) -> None:
    """Raises `BadInput` where the signal does not fit the student or the loss."""
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
    if isinstance(of, teacher.TopK):
        mend = f"set config.stages.{c.cache}.signal.name=logits"
        if not isinstance(c.logits, config.KL):
            raise BadInput(
                f"{path}.logits: {c.logits.name} needs all logits, and {c.cache} keeps a top k; {mend}"
            )
        if c.standardize:
            raise BadInput(
                f"{path}.standardize: it needs all logits, and {c.cache} keeps a top k; {mend}"
            )
        if isinstance(c.temperature, config.Ramp):
            raise BadInput(
                f"{path}.temperature: {c.cache} keeps the tail of a top k at fixed temperatures; give "
                f"one of them, or {mend}"
            )
    if isinstance(c.logits, config.MultiLevel) and not (
        c.logits.temperatures and min(c.logits.temperatures) > 0
    ):
        raise BadInput(f"{path}.logits.temperatures: give at least one, each above zero")


def _numbers(c: config.Distill, path: str) -> dict[str, train.Number]:
    """Temperature and weights of a student, of which some may change over the steps.

    Raises:
      BadInput: a ramp does not fit into the training, or a temperature is not above zero.
    """
    ramp = c.temperature
    if isinstance(ramp, config.Ramp) and min(ramp.begin, ramp.end) <= 0:
        raise BadInput(f"{path}.temperature: {min(ramp.begin, ramp.end)} is not above zero")
    found: dict[str, train.Number] = {}
    for name in _KNOBS:
        number = build.number(getattr(c, name), steps=c.steps, path=f"{path}.{name}")
        # In float32, as those of a sweep are.
        found[name] = number if callable(number) else float(np.float32(number))
    return found


def _settings(
    c: config.Distill, signal: teacher.Signal, path: str
) -> dict[str, Float[np.ndarray, " students"]]:
    """What the students of a sweep have of their own; what is a schedule to all is not in it.

    Raises:
      BadInput: a temperature is not to be had.
    """
    of = signal.of if isinstance(signal, teacher.Apart) else signal
    found: dict[str, np.ndarray] = {}
    for name in _KNOBS:
        values = [getattr(knobs, name) for knobs in c.sweep or (config.Knobs(),)]
        values = [getattr(c, name) if value is None else value for value in values]
        ramps = sum(isinstance(value, config.Ramp) for value in values)
        if 0 < ramps < len(values):
            raise BadInput(
                f"{path}.sweep: {name} is a schedule of some students and a number of others; give "
                "each a number of its own, or none"
            )
        if not ramps:
            found[name] = np.asarray(values, np.float32)
        if ramps or name != "temperature":
            continue
        for i, temperature in enumerate(values):
            where = f"{path}.sweep[{i}].temperature" if c.sweep else f"{path}.temperature"
            if temperature <= 0:
                raise BadInput(f"{where}: {temperature} is not above zero")
            if isinstance(of, teacher.TopK) and temperature not in of.temperatures:
                known = ", ".join(map(str, of.temperatures))
                raise BadInput(
                    f"{where}: {c.cache} keeps the tail at temperature {known}, not at {temperature}; "
                    f"add it to config.stages.{c.cache}.signal.temperatures"
                )
    return found


def _teacher_weights(c: config.Distill, cached: config.Cache, path: str) -> list[train.Number]:
    """Of the teachers that are kept apart, one in all at every step; none where there are none."""
    field, given = f"{path}.teacher_weights", c.teacher_weights
    if cached.together != "apart" or len(cached.teachers) < 2:
        if given is not None:
            raise BadInput(f"{field}: {c.cache} keeps no teachers apart; set its together=apart")
        return []
    fixed = [weight for weight in given or () if not isinstance(weight, config.Ramp)]
    if given is None or len(fixed) == len(given):
        return list(weights_of(cached, None if given is None else tuple(fixed), field))
    numbers = [
        build.number(weight, steps=c.steps, path=f"{field}[{i}]") for i, weight in enumerate(given)
    ]

    def all_at(step) -> Float[Array, "teachers ..."]:
        return jnp.stack([jnp.broadcast_to(train.at(n, step), step.shape) for n in numbers])

    over = np.asarray(all_at(jnp.arange(c.steps)))
    if len(given) != len(cached.teachers) or over.min() < 0 or over.sum(0).min() <= 0:
        raise BadInput(
            f"{field}: give each of the {len(cached.teachers)} teachers a weight that is never "
            "negative, and not all of them zero at one step"
        )

    def share(i: int) -> optax.Schedule:
        return lambda step: all_at(step)[i] / all_at(step).sum()

    return [share(i) for i in range(len(numbers))]
