"""A student that learns from the teacher on exactly the views that the teacher saw."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from kdjax import config, keys, tasks, teacher, train
from kdjax.artifacts.model import Spec
from kdjax.checks import expected
from kdjax.checks.answering import check_labels_fit
from kdjax.config.logit_losses.plain import PLAIN_KD
from kdjax.contexts import build
from kdjax.contexts.context import Context
from kdjax.distill import Scalar
from kdjax.fitting.fit import Setup, fit, rehearse
from kdjax.fitting.initial_model import begin
from kdjax.stages.finetune import leave, leave_sweep, ready
from kdjax.teacher_targets import features, hyperparameters
from kdjax.teacher_targets.targets import targets_of


def objective(
    model: nn.Module,
    task: tasks.Task,
    *,
    signal: teacher.Signal,
    temperature: Scalar,
    kd_weight: Scalar,
    ce_weight: Scalar,
    loss: config.LogitLoss = PLAIN_KD,
    standardize: bool = False,
    teacher_weights: Float[Array, " teachers"] | None = None,
    of_features: Sequence[features.Term] = (),
    own: Callable[[train.Terms], train.Terms] = dict,
    axis_name: str | None = None,
) -> train.Objective:
    """The terms of the answers, of the labelled rows and of the features; see `config.Distill`.

    `own` adds terms to these.
    """
    kd = task.taught(
        signal,
        tasks.Softmaxes(temperature, loss, standardize),
        teacher_weights=teacher_weights,
        axis_name=axis_name,
    )
    terms = {
        "kd": (kd_weight, kd),
        task.loss: (ce_weight, task.labelled),
        **features.weighed(of_features),
    }
    forward = (
        features.forward(model, of_features, axis_name) if of_features else train.forward_of(model)
    )
    return train.weigh(forward, own(terms), axis_name=axis_name)


def run(context: Context, c: config.Distill) -> Mapping[str, Any]:
    """Trains the student, pruning it on the way if asked to, and measures the result."""
    (spec, settings), setup = _prepare(context, c)
    state = fit(context, c, setup)
    if c.sweep:
        students = [train.student(state, i).variables for i in range(len(c.sweep))]
        said = [{name: float(v[i]) for name, v in settings.items()} for i in range(len(c.sweep))]
        return leave_sweep(context, spec, students, said)
    return leave(context, spec, state)


def check(context: Context, c: config.Distill) -> Mapping[str, Any]:
    """Refuses what cannot be trained; gives what the manifest will say of the model."""
    (spec, _), pruned = rehearse(
        context,
        c,
        lambda context: _prepare(context, c),
        views_path=f"config.stages.{c.cache}.recipe",
        exact=context.exact,
    )
    cached = context.run.stages[c.cache]
    assert isinstance(cached, config.Cache)
    check_labels_fit(context, spec, context.splits.partly_labelled(context.seed), cached.recipe)
    if c.sweep:
        return {"sweep": {"model": spec.plain()}}
    return {**expected.model(c, spec), **pruned}


def _prepare(context: Context, c: config.Distill) -> tuple[tuple[Spec, Mapping[str, Any]], Setup]:
    path = context.path
    taught = targets_of(context, c)
    start = begin(
        context, start_from=c.start_from, encoder=c.encoder, inputs=taught.inputs, path=path
    )
    source, signal = taught.source, taught.source.signal
    hyperparameters.check_signal(c, source, start.spec, path)
    settings, shares = (
        hyperparameters.settings(c, signal, path),
        hyperparameters.teacher_shares(c, source.c, path),
    )
    numbers = hyperparameters.numbers(c) | {f"teacher {i}": share for i, share in enumerate(shares)}
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

    own = functools.partial(build.terms, c, path=path, axis_name=axis_name)

    def of_now(now: Mapping[str, Scalar]) -> train.Objective:
        of_teachers = [jnp.asarray(now[f"teacher {i}"], jnp.float32) for i in range(len(shares))]
        return objective(
            model,
            spec.task,
            signal=signal,
            temperature=now["temperature"],
            kd_weight=now["kd_weight"],
            ce_weight=now["ce_weight"],
            loss=c.logits,
            standardize=c.standardize,
            teacher_weights=jnp.stack(of_teachers) if of_teachers else None,
            of_features=of_features,
            own=own,
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
    return (spec, settings), Setup(
        variables=variables,
        objective=objectives,
        tx=tx,
        dataset=context.splits.partly_labelled(context.seed),
        views=taught.views,
        resident=taught.resident,
        join=taught.join,
        partner_rows=source.partner_rows,
    )
