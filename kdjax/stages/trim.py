"""A model with the tokens that occur, and no others: its tables, and how examples are said to it."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from flax import traverse_util

from kdjax import config
from kdjax.artifacts.artifact import save_variables
from kdjax.artifacts.model import Spec, load
from kdjax.contexts.context import Context
from kdjax.measuring import measure
from kdjax.measuring.parity import StageFailed
from kdjax.types import BadInput, Variables

_EXAMPLES = 128
"""Training examples that both models are asked about."""


def run(context: Context, c: config.Trim) -> Mapping[str, Any]:
    """Takes rows away, holds the result against the model before, and leaves it."""
    spec, variables = load(context.inputs[c.model], field=f"{context.path}.model")
    small = _small(context, c, spec)
    left = fewer_rows(spec, small, variables, context.splits.numbers)
    difference = _difference(context, spec, variables, small, left)
    if not difference <= c.tolerance:
        raise StageFailed(
            f"{context.name}: the trimmed model differs from {c.model} by {difference:.3g} of the "
            f"largest output, more than {c.tolerance:g}"
        )
    fingerprint = save_variables(context.folder, left, alone=True)
    row = measure.live_row(context.given(small.inputs), small, left, folder=context.folder)
    fields = {
        name: (spec.inputs.fields[name], len(n)) for name, n in context.splits.numbers.items()
    }
    return {
        "variables": fingerprint,
        "model": small.plain(),
        "rows": [dataclasses.asdict(row)],
        "trimmed": {
            "model": c.model,
            "difference": difference,
            "kept": {name: {"of": field.below, "are": n} for name, (field, n) in fields.items()},
            "test_examples_otherwise": _otherwise(context),
        },
    }


def check(context: Context, c: config.Trim) -> Mapping[str, Any]:
    """Refuses what cannot be trimmed; gives what the manifest will say."""
    spec = Spec.of(context.inputs[c.model], field=f"{context.path}.model")
    return {"model": _small(context, c, spec).plain()}


def _small(context: Context, c: config.Trim, spec: Spec) -> Spec:
    """The model with fewer tokens.

    Raises:
      BadInput: it is quantized, it is given nothing that could be fewer, or all of it occurs.
    """
    path = f"{context.path}.model"
    if spec.rules:
        raise BadInput(path, f"{c.model} is quantized", "trim it, then quantize it")
    if not context.splits.can_be_narrowed:
        raise BadInput(
            path,
            f"{c.model} is given {spec.inputs}, of which nothing could be fewer",
            "leave the stage out",
        )
    numbers = context.splits.numbers
    if all(len(own) == spec.inputs.fields[name].below for name, own in numbers.items()):
        raise BadInput(path, f"all that {c.model} knows occurs in the data", "leave the stage out")
    fields = context.splits.narrowed.train.fields
    _ = context.splits.narrowed.test  # texts that become too long are named before anything runs
    return dataclasses.replace(
        spec, encoder=spec.encoder.open, inputs=spec.inputs.of_fields(fields)
    )


def fewer_rows(
    spec: Spec, small: Spec, variables: Variables, numbers: Mapping[str, np.ndarray]
) -> Variables:
    """The variables of a trimmed model: rows are taken of what has fewer of them there.

    Args:
      spec: of the model before.
      small: of the trimmed one.
      variables: of the model before.
      numbers: what each integer was before, by field.
    """
    before: dict[str, Any] = {**traverse_util.flatten_dict(variables, sep="/")}
    after: dict[str, Any] = {**traverse_util.flatten_dict(small.abstract(), sep="/")}
    found = {}
    for name, value in before.items():
        shape = after[name].shape
        for axis, (n, m) in enumerate(zip(value.shape, shape, strict=True)):
            if n != m:
                (rows,) = (own for own in numbers.values() if len(own) == m)
                value = np.take(np.asarray(value), rows, axis)
        found[name] = value
    return traverse_util.unflatten_dict(found, sep="/")


def _difference(
    context: Context, spec: Spec, variables: Variables, small: Spec, left: Variables
) -> float:
    """Largest difference of an output on training examples, relative to the largest one."""
    splits = context.splits
    rows = np.arange(min(_EXAMPLES, len(splits.train)))
    want, have = (
        np.asarray(jax.jit(s.predict)(v, data.train.read(rows)))
        for s, v, data in ((spec, variables, splits), (small, left, splits.narrowed))
    )
    return float(np.abs(want - have).max() / np.maximum(np.abs(want).max(), np.float32(1e-30)))


def _otherwise(context: Context) -> int:
    """How many test examples are other tokens now, as they have some that are not left."""
    known = context.splits.numbers
    inside = np.ones(len(context.splits.test), bool)
    for name, numbers in known.items():
        tokens = context.splits.test_inputs[name]
        real = np.arange(tokens.shape[1])[None] < context.splits.test.lengths[name][:, None]
        inside &= (np.isin(tokens, numbers) | ~real).all(1)
    return int((~inside).sum())
