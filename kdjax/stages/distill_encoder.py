"""An encoder that learns a teacher's embedding of every view: no labels, no classes."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import numpy as np

from kdjax import config, teacher, train
from kdjax.losses import embedding_cosine
from kdjax.stages import build
from kdjax.stages.begin import leave_encoder, ready_encoder
from kdjax.stages.context import Context
from kdjax.stages.finetune import classify
from kdjax.stages.fit import fit
from kdjax.stages.lesson import lesson
from kdjax.stages.model import EncoderSpec
from kdjax.types import BadInput


def objective(model: nn.Module, *, axis_name: str | None = None) -> train.Objective:
    """`1 - cos` between the projections and `teacher_embedding`."""

    def cosine(outputs, batch):
        return embedding_cosine(outputs["projections"], batch["teacher_embedding"])

    return train.weigh(classify(model), {"cosine": (1.0, cosine)}, axis_name=axis_name)


def run(context: Context, c: config.DistillEncoder) -> Mapping[str, Any]:
    """Trains encoder and projector; the encoder is what later stages take."""
    path = f"config.stages.{context.name}"
    taught = lesson(context, c)
    if not isinstance(taught.source.signal, teacher.Embedding):
        raise BadInput(
            f"{path}.cache: {c.cache} keeps no embedding of one teacher; give it "
            "signal.name=embedding"
        )
    dataset = context.splits.train.hide_labels(np.arange(0))
    spec = EncoderSpec(
        encoder=c.encoder,
        projector=(*c.projector, taught.source.signal.dim),
        image_shape=dataset.image_shape,
        size=taught.size,
    )
    axis_name = context.parallel.axis_name
    variables, tx = ready_encoder(context, c, spec)
    state = fit(
        context,
        c,
        variables=variables,
        objective=objective(spec.module(build.compute(c, axis_name)), axis_name=axis_name),
        tx=tx,
        dataset=dataset,
        views=taught.views,
        resident=taught.resident,
        join=taught.join,
        partner_rows=taught.source.partner_rows,
    )
    return leave_encoder(context, spec, state)
