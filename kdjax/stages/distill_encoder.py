"""An encoder that learns a teacher's embedding of every view: no labels, no classes."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Key

from kdjax import config, keys, losses, teacher, train
from kdjax.stages import build
from kdjax.stages.begin import leave_encoder, ready_encoder
from kdjax.stages.context import Context
from kdjax.stages.fit import Setup, fit, rehearse
from kdjax.stages.lesson import lesson
from kdjax.stages.model import EncoderSpec
from kdjax.types import BadInput

POINTER = "pointer"
STUDENT, TEACHER = "student", "teacher"
"""Of what a method remembers: whose rows, and the oldest of them."""


def objective(
    model: nn.Module,
    *,
    method: config.EmbeddingMethod,
    axis_name: str | None = None,
) -> train.Objective:
    """How `method` holds the projections against `teacher_embedding`.

    What it remembers of earlier batches is in the state, see `memory`: the terms read it as it was
    before this batch, which goes in afterwards.
    """
    forward = train.forward_of(model)

    def remembering(params, state, batch, key):
        outputs, model_state = forward(params, state, batch, key)
        known = state.model_state.get(train.MEMORY)
        if known is None:
            return outputs, model_state
        mine = {STUDENT: outputs["projections"], TEACHER: batch["teacher_embedding"]}
        moved = {}
        for side in known.keys() - {POINTER}:
            moved[side], moved[POINTER] = losses.enqueue(
                known[side], mine[side], known[POINTER], axis_name=axis_name
            )
        outputs = {**outputs, **{f"{side}_queue": known[side] for side in known.keys() - {POINTER}}}
        return outputs, {**model_state, train.MEMORY: moved}

    return train.weigh(remembering, terms(method, axis_name=axis_name), axis_name=axis_name)


def terms(
    c: config.EmbeddingMethod, *, axis_name: str | None = None
) -> Mapping[str, tuple[float, train.Term]]:
    """The weighted terms of a method, of `projections`, `teacher_embedding` and the queues."""

    def of(loss, **numbers):
        return lambda out, batch: loss(out["projections"], batch["teacher_embedding"], **numbers)

    match c:
        case config.EmbeddingCosine():
            return {"cosine": (1.0, of(losses.embedding_cosine))}
        case config.EmbeddingMSE():
            return {"mse": (1.0, of(losses.embedding_mse))}
        case config.EmbeddingSEED():

            def seed(out, batch):
                return losses.seed(
                    out["projections"],
                    batch["teacher_embedding"],
                    out["teacher_queue"],
                    student_temperature=c.student_temperature,
                    teacher_temperature=c.teacher_temperature,
                )

            return {"seed": (1.0, seed)}
        case config.EmbeddingCompRess():

            def compress(out, batch):
                return losses.compress(
                    out["projections"],
                    batch["teacher_embedding"],
                    out["student_queue"],
                    out["teacher_queue"],
                    temperature=c.temperature,
                )

            return {"compress": (1.0, compress)}
        case config.EmbeddingRKD():
            found = {"distance": (c.distance_weight, of(losses.rkd_distance, axis_name=axis_name))}
            if c.angle_weight:
                found["angle"] = (c.angle_weight, of(losses.rkd_angle, axis_name=axis_name))
            return found
        case config.EmbeddingSimilarity():
            similarity = of(losses.similarity_preserving, axis_name=axis_name)
            return {"similarity": (c.weight, similarity)}


def memory(
    c: config.EmbeddingMethod, key: Key[Array, ""], *, student: int, teacher: int
) -> dict[str, Array]:
    """What a method remembers before its first step: random unit rows; empty where it has no queue.

    Args:
      c: the method.
      key: of the stream that the rows are drawn from.
      student: width of the projections.
      teacher: width of the teacher's embedding.
    """
    match c:
        case config.EmbeddingSEED():
            sides = {TEACHER: teacher}
        case config.EmbeddingCompRess():
            sides = {STUDENT: student, TEACHER: teacher}
        case _:
            return {}
    rows = {
        side: losses.random_queue(keys.stream(key, side), size=c.queue, dim=width)
        for side, width in sides.items()
    }
    return {**rows, POINTER: jnp.int32(0)}


def run(context: Context, c: config.DistillEncoder) -> Mapping[str, Any]:
    """Trains encoder and projector; the encoder is what later stages take."""
    spec, setup = _prepare(context, c)
    return leave_encoder(context, spec, fit(context, c, **setup._asdict()))


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
    taught = lesson(context, c)
    if not isinstance(taught.source.signal, teacher.Embedding):
        raise BadInput(
            f"{path}.cache: {c.cache} keeps no embedding of one teacher; give it "
            "signal.name=embedding"
        )
    dataset = context.splits.train
    width = taught.source.signal.dim
    row_by_row = config.EmbeddingCosine | config.EmbeddingMSE | config.EmbeddingSEED
    spec = EncoderSpec(
        encoder=c.encoder,
        projector=(*c.projector, width) if isinstance(c.method, row_by_row) else c.projector,
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
    return spec, Setup(
        variables={**variables, train.MEMORY: remembered} if remembered else variables,
        objective=objective(
            spec.module(build.compute(c, axis_name)), method=c.method, axis_name=axis_name
        ),
        tx=tx,
        dataset=dataset,
        views=taught.views,
        resident=taught.resident,
        join=taught.join,
        partner_rows=taught.source.partner_rows,
    )
