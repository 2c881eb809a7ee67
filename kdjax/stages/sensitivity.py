"""How much each group of units of a model matters, for `shrink` to allocate by."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from kdjax import config, shrink
from kdjax.losses import cross_entropy, kd_kl
from kdjax.stages.context import Context
from kdjax.stages.model import load, logits
from kdjax.stages.pruning import UNIT_SCORES
from kdjax.types import BadInput

_BATCH = 128


def run(context: Context, c: config.Sensitivity) -> Mapping[str, Any]:
    """Masks one group at a time, at each sparsity, and says what it does to the model."""
    path = f"config.stages.{context.name}"
    artifact = context.inputs[c.model]
    spec, variables = load(artifact, field=f"{path}.model")
    variables = jax.tree.map(jnp.asarray, variables)
    rows = context.sample_rows(c.examples, field=f"{path}.examples")
    images, labels = context.splits.train.read(rows), context.splits.train.labels[rows]
    if c.against == "labels" and (labels < 0).any():
        raise BadInput(f"{path}.against: some of these examples have no label; take predictions")
    module, rest = spec.module(), {n: v for n, v in variables.items() if n != "params"}

    def says(params, batch):
        return logits(module, {"params": params, **rest}, spec.preprocess(batch["image"]))

    def loss(params, batch):
        if c.against == "labels":
            return cross_entropy(says(params, batch), batch["label"]).mean()
        return kd_kl(says(params, batch), batch["whole"]).mean()

    whole = jax.jit(says)
    size = min(_BATCH, c.examples)
    batches = []
    for begin in range(0, c.examples // size * size, size):
        batch = {"image": jnp.asarray(images[begin : begin + size])}
        batch["label"] = jnp.asarray(labels[begin : begin + size])
        batches.append({**batch, "whole": whole(variables["params"], batch)})
    groups = shrink.groups_of(spec.analysed(), variables, spec.preprocess(jnp.asarray(images[:1])))
    scores = UNIT_SCORES[c.score](groups, variables["params"])
    try:
        curves = shrink.sensitivity(
            loss, groups, scores, variables["params"], batches, sparsities=c.sparsities
        )
    except BadInput as error:
        raise BadInput(f"{path}.{error}") from None
    return {
        "sensitivity": {
            "model": c.model,
            "against": c.against,
            "examples": len(batches) * size,
            "curves": {
                name: {str(sparsity): increase for sparsity, increase in curve.items()}
                for name, curve in curves.items()
            },
            "groups": shrink.described(groups, {}),
        }
    }
