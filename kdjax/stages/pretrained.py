"""Published weights without any training: a whole model, or an encoder."""

import dataclasses
import sys
from collections.abc import Mapping
from typing import Any

import jax

from kdjax import config, tasks
from kdjax.artifacts.artifact import save_variables
from kdjax.artifacts.model import EncoderSpec, Spec
from kdjax.contexts.context import Context
from kdjax.fitting.fit import model_key
from kdjax.fitting.imported import begun, held
from kdjax.measuring import measure


def run(context: Context, c: config.Pretrained) -> Mapping[str, Any]:
    """Keeps the weights; of a whole model, measures it."""
    spec = _left(context, c)
    variables = begun(context, spec, spec.init(model_key(context)))
    said = {"variables": save_variables(context.folder, variables, alone=True)}
    if isinstance(spec, EncoderSpec):
        return {**said, "encoder_model": spec.plain()}
    row = measure.live_row(context, spec, variables, folder=context.folder)
    return {**said, "model": spec.plain(), "rows": [dataclasses.asdict(row)]}


def check(context: Context, c: config.Pretrained) -> Mapping[str, Any]:
    """Refuses weights that are not those of the encoder; gives what the manifest will say of it."""
    spec = _left(context, c)
    return {"encoder_model" if isinstance(spec, EncoderSpec) else "model": spec.plain()}


def _left(context: Context, c: config.Pretrained) -> Spec | EncoderSpec:
    """What it leaves: a whole model, if the classifier of the weights is one of the task."""
    inputs = context.splits.inputs.sized(c.size)
    task = tasks.of(context.splits.train)
    whole = Spec(encoder=c.encoder, inputs=inputs, task=task)
    found = held(context, whole, whole.abstract())
    assert found is not None  # there are weights, see the config
    if found.head is not None:
        return whole
    if not context.ahead and jax.process_index() == 0:
        print(
            f"{context.name}: it leaves the encoder alone: the classifier is {found.account.head}",
            file=sys.stderr,
        )
    return EncoderSpec(encoder=c.encoder, projector=(), inputs=inputs)
