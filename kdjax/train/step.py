"""The one train step: pure, and not yet compiled."""

import math
from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Key

from kdjax import tree
from kdjax.prune import find_masks
from kdjax.train import observing
from kdjax.train.freezing import Freezing
from kdjax.train.gradients import Metrics, gradients_of
from kdjax.train.objective import Objective
from kdjax.train.state import MEMORY, TrainState
from kdjax.types import BadInput, Batch, PyTree

TrainStep: TypeAlias = Callable[[TrainState, Batch, Key[Array, ""]], tuple[TrainState, Metrics]]
Prepare: TypeAlias = Callable[[PyTree, PyTree, Key[Array, ""]], Batch]


def make_train_step(
    objective: Objective,
    tx: optax.GradientTransformation,
    *,
    ema: float | optax.Schedule | None = None,
    debiased: bool = False,
    accumulate: int = 1,
    freezing: Freezing | None = None,
    axis_name: str | None = None,
) -> TrainStep:
    """`(state, batch, key) -> (state, metrics)`.

    Metrics are scalars: `loss`, each `loss/<term>`, and the L2 norms `norm/grad`, `norm/update`.

    Args:
      objective: `(params, state, batch, key) -> (loss, (model_state, metrics))`.
      tx: the optimizer; where weights are pruned, `kdjax.prune.hold` around it.
      ema: decay of the average of the parameters, in [0, 1], or a schedule of it over the step. Zeros
        of a mask are zeros of the average too.
      debiased: the average is that of the parameters after each update, of which the one `i` updates
        ago counts `ema^i`, whatever the decay; it takes a number below 1. Without, the parameters
        before the first update count for the rest, `ema^steps`, as in a target network.
      accumulate: parts that the batch is dealt into, row by row, which go one after the other for
        one update of their mean gradient. Batch statistics follow each part, and a loss that
        couples examples sees one part at a time; a mean over chosen rows is that of the whole batch.
        Where the outputs of the model choose them, each part goes through it once more for that.
      freezing: what does not change, with a `tx` of `kdjax.train.freeze`.
      axis_name: mapped axis over which gradients, metrics and statistics are averaged, None in the
        global view.

    The key of an update is folded with the step and the device; the views of an example never
    depend on it.

    Raises:
      BadInput: `ema` is out of range.

    Reference: of `debiased`, Kingma and Ba 2014, https://arxiv.org/abs/1412.6980, sec. 3.
    """
    if debiased and (ema is None or callable(ema) or not 0 <= ema < 1):
        raise BadInput("ema", f"{ema}", "a debiased average takes a number in [0, 1)")
    if isinstance(ema, float | int) and not 0 <= ema <= 1:
        raise BadInput("ema", f"{ema} is not in [0, 1]")
    constant = ema if debiased and isinstance(ema, float | int) else None

    gradients = gradients_of(
        objective if freezing is None else freezing.of(objective), parts=accumulate
    )

    def train_step(state: TrainState, batch: Batch, key: Key[Array, ""]):
        key = jax.random.fold_in(key, state.step)
        if axis_name is not None:
            key = jax.random.fold_in(key, lax.axis_index(axis_name))
        model_state, (metrics, grads) = gradients(state, batch, key)
        if axis_name is not None:
            memory = {name: x for name, x in model_state.items() if name == MEMORY}
            moved = {name: x for name, x in model_state.items() if name != MEMORY}
            moved, metrics, grads = lax.pmean((moved, metrics, grads), axis_name)
            model_state = {**moved, **memory}
        if freezing is not None:
            before = state.model_state
            model_state = freezing.kept_statistics(before, model_state, state.params, state.step)

        observing.see("gradient of", grads)
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        masks = find_masks(opt_state)  # which refuses masks inside another transformation
        params = optax.apply_updates(state.params, updates)
        observing.see("update of", updates)
        ema_params = state.ema_params
        if ema is not None and ema_params is not None:
            decay = ema(state.step) if callable(ema) else ema
            share = 1.0 - decay
            if constant:
                # Of the weights of all updates so far, `ema^i`, the newest one's.
                updates_so_far = (state.step + 1).astype(jnp.float32)
                share = share / -jnp.expm1(updates_so_far * math.log(constant))
            ema_params = optax.incremental_update(params, ema_params, share)
            if freezing is not None:  # a sum of equal numbers is rounded
                ema_params = freezing.kept(params, ema_params, state.step)
            if masks is not None:
                ema_params = tree.apply_masks(masks, ema_params)

        norms = {"norm/grad": optax.tree.norm(grads), "norm/update": optax.tree.norm(updates)}
        state = TrainState(state.step + 1, params, opt_state, model_state, ema_params)
        return state, {**metrics, **norms}

    return train_step


def make_run_steps(prepare: Prepare, train_step: TrainStep):
    """`(state, resident, feed, key) -> (state, metrics)` over several steps in one dispatch.

    Args:
      prepare: `(resident, feed of one step, key) -> batch`: what is done on the device before the
        step, such as looking examples up, drawing their views, asking a live teacher.
      train_step: see `make_train_step`.

    Each array of `feed` has a leading axis of steps, each metric too.
    """

    def run_steps(state: TrainState, resident: PyTree, feed: PyTree, key: Key[Array, ""]):
        def body(state, feed):
            return train_step(state, prepare(resident, feed, key), key)

        if all(leaf.shape[0] == 1 for leaf in jax.tree.leaves(feed)):
            # XLA:CPU runs convolutions inside a loop on one thread: no loop around a single step.
            state, metrics = body(state, jax.tree.map(lambda x: x[0], feed))
            return state, jax.tree.map(lambda x: x[None], metrics)
        return lax.scan(body, state, feed)

    return run_steps
