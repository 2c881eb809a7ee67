"""SimCLR: an encoder from images alone."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from kdjax import config, keys, train, views
from kdjax.losses import nt_xent
from kdjax.stages import build
from kdjax.stages.begin import leave_encoder, ready_encoder
from kdjax.stages.context import Context
from kdjax.stages.fit import fit
from kdjax.stages.model import EncoderSpec


def objective(
    model: nn.Module, *, temperature: float, axis_name: str | None = None
) -> train.Objective:
    """NT-Xent between the projections of `view_a` and `view_b`.

    Both views go through the model as one batch, so that batch statistics are those of both.
    """

    def forward(params, state, batch, key):
        both = jnp.concatenate([batch["view_a"], batch["view_b"]])
        outputs, model_state = model.apply(
            {"params": params, **state.model_state}, both, train=True, mutable=["batch_stats"]
        )
        za, zb = jnp.split(outputs["projections"], 2)
        return {"za": za, "zb": zb}, model_state

    def contrast(outputs, batch):
        return nt_xent(outputs["za"], outputs["zb"], temperature=temperature, axis_name=axis_name)

    return train.weigh(forward, {"nt_xent": (1.0, contrast)}, axis_name=axis_name)


def two_views(recipe: build.Recipe, stream: str):
    """Views `2 * epoch` and `2 * epoch + 1` of each example."""

    def draw(batch, resident, key):
        stream_key = keys.stream(key, stream)

        def view(i):
            number = 2 * batch["epoch"] + jnp.uint32(i)
            return views.batch_views(recipe, stream_key, number, batch["id"], batch["image"])

        return {"view_a": view(0), "view_b": view(1)}

    return draw


def run(context: Context, c: config.Pretrain) -> Mapping[str, Any]:
    """Trains encoder and projector; the encoder is what later stages take."""
    dataset = context.splits.train.hide_labels(np.arange(0))
    axis_name = context.parallel.axis_name

    size = c.views.size or context.splits.size
    spec = EncoderSpec(
        encoder=c.encoder, projector=c.projector, image_shape=dataset.image_shape, size=size
    )
    variables, tx = ready_encoder(context, c, spec)
    state = fit(
        context,
        c,
        variables=variables,
        objective=objective(
            spec.module(build.compute(c, axis_name)), temperature=c.temperature, axis_name=axis_name
        ),
        tx=tx,
        dataset=dataset,
        views=two_views(build.recipe(c.views, context.run.data, size=size), context.name),
    )
    return leave_encoder(context, spec, state)
