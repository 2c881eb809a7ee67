"""Self-supervised pretraining: an encoder from images alone."""

from collections.abc import Mapping
from typing import Any

from kdjax import config
from kdjax.stages import build, methods
from kdjax.stages.begin import leave_encoder, ready_encoder
from kdjax.stages.context import Context
from kdjax.stages.fit import fit, model_key
from kdjax.stages.model import EncoderSpec


def run(context: Context, c: config.Pretrain) -> Mapping[str, Any]:
    """Trains encoder and projector; the encoder is what later stages take."""
    axis_name = context.parallel.axis_name
    dataset = context.splits.partly_labelled(context.seed) if c.probe else context.splits.train
    size = build.side(c.views, context.splits.size)
    spec = EncoderSpec(
        encoder=c.encoder, projector=c.projector, image_shape=dataset.image_shape, size=size
    )
    views = methods.seen(context, c, size=size)
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
    state = fit(
        context,
        c,
        variables=variables,
        objective=method.objective(axis_name),
        tx=tx,
        dataset=dataset,
        views=views,
        ema=method.momentum,
    )
    return leave_encoder(context, spec, state, variables=method.left(state))
