"""The gradient of an objective on a batch, at once or in parts that go one after the other."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import TypeAlias

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Key

from kdjax.train import observing
from kdjax.train.objective import CHOSEN, Objective
from kdjax.train.state import TrainState
from kdjax.types import Batch, PyTree

Metrics: TypeAlias = Mapping[str, Array]
Gradients: TypeAlias = Callable[
    [TrainState, Batch, Key[Array, ""]], tuple[PyTree, tuple[Metrics, PyTree]]
]
"""`(state, batch, key) -> (model_state, (metrics, gradient))`; `loss` is among the metrics."""


def gradients_of(objective: Objective, *, parts: int = 1) -> Gradients:
    """What one update needs of a batch.

    Args:
      objective: see `kdjax.train.weigh`.
      parts: that the batch is dealt into; see `accumulate` of `kdjax.train.make_train_step`.
    """

    def gradients(state: TrainState, batch: Batch, key: Key[Array, ""]):
        value_and_grad = jax.value_and_grad(objective, has_aux=True)
        (loss, (model_state, metrics)), grads = value_and_grad(state.params, state, batch, key)
        return model_state, ({"loss": loss, **metrics}, grads)

    def accumulated(state: TrainState, batch: Batch, key: Key[Array, ""]):
        # Every so many rows one, not runs of rows: a device that has a run of the batch has the
        # same rows of each part as the global view, and so the same statistics and negatives.
        dealt = jax.tree.map(lambda x: x.reshape(-1, parts, *x.shape[1:]).swapaxes(0, 1), batch)
        chosen = _chosen_rows(objective, state, dealt, key)

        def part(carry, this):
            i, batch = this
            model_state, total = carry
            model_state, new = gradients(
                dataclasses.replace(state, model_state=model_state),
                {**batch, **chosen},
                jax.random.fold_in(key, i),
            )
            return (model_state, jax.tree.map(jnp.add, total, new)), None

        first = {**jax.tree.map(lambda x: x[0], dealt), **chosen}
        shapes = jax.eval_shape(gradients, state, first, key)[1]
        zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
        (model_state, total), _ = lax.scan(
            part, (state.model_state, zeros), (jnp.arange(parts), dealt)
        )
        return model_state, jax.tree.map(lambda x: x / parts, total)

    return gradients if parts == 1 else accumulated


def _chosen_rows(
    objective: Objective, state: TrainState, dealt: Batch, key: Key[Array, ""]
) -> Batch:
    """For each part's batch: of how many rows each mean over chosen ones is, see `CHOSEN`.

    What chooses no row is dead code: where the batch itself says which, the model is not run.
    """

    def ask(model_state: PyTree, this: tuple[Array, Batch]):
        i, batch = this
        now = dataclasses.replace(state, model_state=model_state)
        _, (model_state, metrics) = objective(
            state.params, now, {**batch, CHOSEN: {}}, jax.random.fold_in(key, i)
        )
        return model_state, metrics.get(CHOSEN, {})

    parts = len(jax.tree.leaves(dealt)[0])
    with observing.unseen():
        _, found = lax.scan(ask, state.model_state, (jnp.arange(parts), dealt))
    return {CHOSEN: jax.tree.map(lambda x: x.mean(0), found)} if found else {}
