"""Stages that a user may bring: the mean of models, and weights rounded."""

import csv
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

NEAR = 0.5


@dataclasses.dataclass
class Averaged:
    """The weighted mean of the parameters of the models that are read."""

    weights: tuple[float, ...]

    def check(self, given):
        """A weight for each model, and models alike."""
        if len(self.weights) != len(given.reads):
            raise ValueError(f"{len(self.weights)} weights for {len(given.reads)} models")
        shapes = [jax.tree.map(jnp.shape, given.model(name).variables) for name in given.reads]
        if shapes.count(shapes[0]) != len(shapes):
            raise ValueError(f"{' and '.join(given.reads)} are not built alike")

    def run(self, given):
        """Leaves the mean."""
        models = [given.model(name).variables for name in given.reads]
        share = np.asarray(self.weights, np.float32) / sum(self.weights)
        given.leave(
            jax.tree.map(lambda *all: sum(s * x for s, x in zip(share, all, strict=True)), *models)
        )
        return {"share": share.tolist()}


def rounded(given, *, step: float):
    """Weights in steps; leaves a table of how far the answers of some training examples moved."""
    (name,) = given.reads
    model, inputs = given.model(name), given.train.read(np.arange(16))
    coarse = {
        **model.variables,
        "params": jax.tree.map(
            lambda w: jnp.floor(w / step + NEAR) * step, model.variables["params"]
        ),
    }
    before, after = (np.asarray(model.predict(v, inputs)) for v in (model.variables, coarse))
    moved = np.abs(after - before).max(-1)
    with (given.folder / "moved.csv").open("w") as file:
        csv.writer(file).writerows(enumerate(moved.tolist()))
    given.leave(coarse)
    return {"moved": float(moved.max())}


def sure(given):
    """How sure the teachers of a cache are, and what the stage before has found; no model."""
    cache, table = given.reads
    said = given.cache(cache).read(given.train.ids[:32], np.zeros(32, np.uint32))
    logits = said["teacher_logits"].astype(np.float64)
    shares = np.exp(logits - logits.max(-1, keepdims=True))
    rows = (given.files(table) / "moved.csv").read_text().splitlines()
    return {
        "sure": float((shares.max(-1) / shares.sum(-1)).mean()),
        "rows": len(rows),
        "moved": given.said(table)["own"]["moved"],
    }
