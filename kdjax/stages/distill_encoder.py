"""An encoder that learns a teacher's embedding of every view: no labels, no classes."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Key

from kdjax import config, keys, losses, teacher, train
from kdjax.artifacts.model import EncoderSpec
from kdjax.config.embeddings import STUDENT, TEACHER
from kdjax.contexts import build
from kdjax.contexts.context import Context
from kdjax.fitting.fit import Setup, fit, rehearse
from kdjax.fitting.initial_model import leave_encoder, ready_encoder
from kdjax.teacher_targets.targets import targets_of
from kdjax.types import BadInput

POINTER = "pointer"
"""The oldest row of what a method remembers."""


def objective(
    model: nn.Module,
    *,
    terms: train.Terms,
    axis_name: str | None = None,
) -> train.Objective:
    """How the terms of a method hold the projections against `teacher_embedding`.

    What the method remembers of earlier batches is in the state, see `memory`: the terms read it as it
    was before this batch, which goes in afterwards.
    """
    forward = train.forward_of(model)

    def remembering(params, state, batch, key):
        outputs, model_state = forward(params, state, batch, key)
        known = state.model_state.get(train.MEMORY)
        if known is None:
            return outputs, model_state
        mine = {STUDENT: outputs["projections"], TEACHER: batch["teacher_embedding"]}
        moved = {}
        for side in sorted(known.keys() - {POINTER}):
            moved[side], moved[POINTER] = losses.enqueue(
                known[side], mine[side], known[POINTER], axis_name=axis_name
            )
        outputs = {**outputs, **{f"{side}_queue": known[side] for side in known.keys() - {POINTER}}}
        return outputs, {**model_state, train.MEMORY: moved}

    return train.weigh(remembering, terms, axis_name=axis_name)


def memory(
    c: config.EmbeddingMethod, key: Key[Array, ""], *, student: int, teacher: int
) -> dict[str, Array]:
    """What a method remembers before its first step, and the place of its oldest row; maybe nothing."""
    rows = c.memory(key, student=student, teacher=teacher)
    return {**rows, POINTER: jnp.int32(0)} if rows else {}


def run(context: Context, c: config.DistillEncoder) -> Mapping[str, Any]:
    """Trains encoder and projector; the encoder is what later stages take."""
    spec, setup = _prepare(context, c)
    return leave_encoder(context, spec, fit(context, c, setup))


def check(context: Context, c: config.DistillEncoder) -> Mapping[str, Any]:
    """Refuses what cannot be trained; gives what the manifest will say of the encoder."""
    spec, pruned = rehearse(
        context,
        c,
        lambda context: _prepare(context, c),
        views_path=f"config.stages.{c.cache}.recipe",
        exact=context.exact,
    )
    return {"encoder_model": spec.plain(), **pruned}


def _prepare(context: Context, c: config.DistillEncoder) -> tuple[EncoderSpec, Setup]:
    path = context.path
    taught = targets_of(context, c)
    if not isinstance(taught.source.signal, teacher.Embedding):
        raise BadInput(
            f"{path}.cache",
            f"{c.cache} keeps no embedding of one teacher",
            "give it signal.name=embedding",
        )
    dataset = context.splits.train
    width = taught.source.signal.dim
    spec = EncoderSpec(
        encoder=c.encoder,
        projector=(*c.projector, width) if c.method.row_by_row else c.projector,
        inputs=taught.inputs,
    )
    axis_name = context.parallel.axis_name
    variables, tx = ready_encoder(context, c, spec)
    remembered = memory(
        c.method,
        keys.stream(context.key, f"{context.name}/queue"),
        student=spec.projector[-1] if spec.projector else spec.features,
        teacher=width,
    )
    terms = build.terms(c, c.method.terms(axis_name=axis_name), path=path, axis_name=axis_name)
    return spec, Setup(
        variables={**variables, train.MEMORY: remembered} if remembered else variables,
        objective=objective(
            spec.module(build.compute(c, axis_name)), terms=terms, axis_name=axis_name
        ),
        tx=tx,
        dataset=dataset,
        views=taught.views,
        resident=taught.resident,
        join=taught.join,
        partner_rows=taught.source.partner_rows,
    )
