"""Self-supervised pretraining: an encoder from examples without their labels."""

from collections.abc import Mapping
from typing import Any

from kdjax import config
from kdjax.stages import expected, methods
from kdjax.stages.begin import leave_encoder, ready_encoder
from kdjax.stages.context import Context
from kdjax.stages.fit import Setup, fit, model_key, rehearse
from kdjax.stages.model import EncoderSpec


def run(context: Context, c: config.Pretrain) -> Mapping[str, Any]:
    """Trains encoder and projector; the encoder is what later stages take."""
    (spec, method), setup = _prepare(context, c)
    state = fit(context, c, **setup._asdict())
    return leave_encoder(context, spec, state, variables=method.left(state))


def check(context: Context, c: config.Pretrain) -> Mapping[str, Any]:
    """Refuses what cannot be trained; gives what the manifest will say of the encoder."""
    inputs = context.splits.inputs.sized(c.views.size)
    expected.check_views(c.views, context, inputs, path=f"{context.path}.views")
    (spec, _), pruned = rehearse(
        context, c, lambda context: _prepare(context, c), views_path=f"{context.path}.views"
    )
    return {"encoder_model": spec.plain(), **pruned}


def _prepare(
    context: Context, c: config.Pretrain
) -> tuple[tuple[EncoderSpec, methods.Method], Setup]:
    axis_name = context.parallel.axis_name
    dataset = context.splits.partly_labelled(context.seed) if c.probe else context.splits.train
    inputs = context.splits.inputs.sized(c.views.size)
    spec = EncoderSpec(encoder=c.encoder, projector=c.projector, inputs=inputs)
    views = methods.seen(context, c, inputs)
    method = methods.chosen(c, spec, axis_name=axis_name)
    if c.probe:
        method = methods.with_probe(method, features=spec.features, classes=dataset.classes)
    variables, tx = ready_encoder(
        context,
        c,
        spec,
        start=lambda variables: method.start(variables, model_key(context)),
        apart=methods.APART if c.probe else None,
    )
    return (spec, method), Setup(
        variables=variables,
        objective=method.objective(axis_name),
        tx=tx,
        dataset=dataset,
        views=views,
        ema=method.momentum,
    )
