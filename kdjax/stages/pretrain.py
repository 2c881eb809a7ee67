"""Self-supervised pretraining: an encoder from examples without their labels."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from kdjax import config, ssl, tasks
from kdjax.artifacts.model import EncoderSpec
from kdjax.checks import expected
from kdjax.contexts import build
from kdjax.contexts.context import Context
from kdjax.fitting import clusters
from kdjax.fitting.fit import Setup, fit, model_key, rehearse
from kdjax.fitting.initial_model import leave_encoder, ready_encoder
from kdjax.inputs import Inputs
from kdjax.types import under
from kdjax.views import draws


def run(context: Context, c: config.Pretrain) -> Mapping[str, Any]:
    """Trains encoder and projector; the encoder is what later stages take."""
    (spec, method), setup = _prepare(context, c)
    state = fit(context, c, setup)
    return leave_encoder(context, spec, state, variables=method.left(state))


def check(context: Context, c: config.Pretrain) -> Mapping[str, Any]:
    """Refuses what cannot be trained; gives what the manifest will say of the encoder."""
    inputs = context.splits.inputs.sized(c.views.size)
    expected.check_views(c.views, context, inputs, path=f"{context.path}.views")
    (spec, _), pruned = rehearse(
        context, c, lambda context: _prepare(context, c), views_path=f"{context.path}.views"
    )
    return {"encoder_model": spec.plain(), **pruned}


def _prepare(context: Context, c: config.Pretrain) -> tuple[tuple[EncoderSpec, ssl.Method], Setup]:
    axis_name = context.parallel.axis_name
    dataset = context.splits.partly_labelled(context.seed) if c.probe else context.splits.train
    inputs = context.splits.inputs.sized(c.views.size)
    spec = EncoderSpec(encoder=c.encoder, projector=c.projector, inputs=inputs)
    method = chosen(c, spec, axis_name=axis_name)
    terms = build.terms(c, method.terms, path=context.path, axis_name=axis_name)
    method = dataclasses.replace(method, terms=terms)
    if c.probe:
        classes = tasks.of(dataset).classes_of_example(f"{context.path}.probe")
        method = ssl.with_probe(method, features=spec.features, classes=classes)
    variables, tx = ready_encoder(
        context,
        c,
        spec,
        start=lambda variables: method.start(variables, model_key(context)),
        apart=ssl.APART if c.probe else None,
    )
    return (spec, method), Setup(
        variables=variables,
        objective=method.objective(axis_name),
        tx=tx,
        dataset=dataset,
        views=seen(context, c, inputs),
        resident=clusters.resident(context, c, spec),
        ema=method.momentum,
    )


def chosen(c: config.Pretrain, spec: EncoderSpec, *, axis_name: str | None = None) -> ssl.Method:
    """The method of a stage.

    Args:
      c: its config.
      spec: the model.
      axis_name: mapped axis of the batch.
    """
    compute = build.compute(c, axis_name)
    model = spec.written(compute)
    return c.method.method(
        ssl.Trained(
            model=model,
            encoder=model.encoder,
            width=spec.projections,
            inputs=spec.inputs,
            compute=compute,
            steps=c.steps,
        )
    )


def seen(context: Context, c: config.Pretrain, inputs: Inputs) -> draws.Draw:
    """What the method of a stage sees of each example, with the label where there is a probe.

    Args:
      context: of the stage.
      c: its config.
      inputs: that the encoder is given.

    Raises:
      BadInput: the method's own views do not fit.
    """
    recipe = c.views.recipe_for(inputs, examples=context.splits.train)
    with under(context.path):
        drawn = c.method.draw(recipe, c, stream=context.name, inputs=inputs)
    return draws.together(drawn, draws.label) if c.probe else drawn
