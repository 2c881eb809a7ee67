"""Masks in the optimizer: zeros survive whatever comes before them in the optax chain."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Int

from kdjax import tree
from kdjax.prune.masks import topk_mask
from kdjax.types import BadInput, PyTree


class MaskState(NamedTuple):
    """State of a mask transform: its own count of updates, and the masks.

    `masks` has the structure of the parameters, with None where a parameter is never pruned.
    """

    count: Int[Array, ""]  # pyright: ignore[reportIncompatibleMethodOverride]  (as optax names it)
    masks: PyTree


def prune_by_magnitude(
    sparsity: optax.Schedule,
    *,
    begin_step: int,
    end_step: int,
    every_steps: int,
    prunable: str,
) -> optax.GradientTransformation:
    """Holds the parameters at the masks of their largest magnitudes. Must be last in the chain.

    The masks are found anew at `begin_step`, each `every_steps` after it, and at `end_step`, each
    tensor by itself, from the parameters that the step would produce. What is pruned stays pruned.
    On every step the update of a pruned weight is `-param`, so that `optax.apply_updates` leaves an
    exact zero; momentum and weight decay of earlier transforms cannot bring it back, and the train
    step needs no hook.

    Args:
      sparsity: `count -> fraction pruned`, not decreasing.
      begin_step: first update that finds masks.
      end_step: last one; the masks are constant after it.
      every_steps: distance between the updates that find masks.
      prunable: pattern that matches the whole name of each parameter to prune, such as
        `.*/kernel`.

    Raises:
      BadInput: `every_steps` is below 1; at `init`, when `prunable` matches no parameter.

    Reference: Zhu and Gupta 2017, https://arxiv.org/abs/1710.01878.
    """
    if every_steps < 1:
        raise BadInput(f"prune.every_steps: {every_steps} is not at least 1")

    def init(params):
        chosen = tree.match(params, prunable)
        if not any(jax.tree.leaves(chosen)):
            raise BadInput(
                f"prune.prunable: {prunable!r} matches no parameter; "
                f"the first of them is {next(iter(tree.named_leaves(params)))!r}"
            )
        masks = jax.tree.map(lambda c, p: jnp.ones(p.shape, bool) if c else None, chosen, params)
        return MaskState(jnp.zeros([], jnp.int32), masks)

    def update(updates, state, params=None):
        if params is None:
            raise ValueError("prune_by_magnitude needs params: tx.update(grads, state, params)")
        count, masks = state
        target = jnp.asarray(sparsity(count))

        def found():
            proposed = optax.apply_updates(params, updates)
            return _map(
                lambda mask, weight: topk_mask(jnp.where(mask, jnp.abs(weight), -1.0), target),
                masks,
                proposed,
            )

        due = ((count - begin_step) % every_steps == 0) | (count == end_step)
        within = (begin_step <= count) & (count <= end_step)
        masks = lax.cond(due & within, found, lambda: masks)
        updates = jax.tree.map(
            lambda mask, u, p: u if mask is None else jnp.where(mask, u, -p),
            masks,
            updates,
            params,
            is_leaf=lambda node: node is None,
        )
        return updates, MaskState(jnp.asarray(optax.safe_increment(count)), masks)

    return optax.GradientTransformation(init, update)


def _map(function, masks: PyTree, params: PyTree) -> PyTree:
    """Maps over the prunable leaves; None stays None."""
    return jax.tree.map(
        lambda mask, leaf: None if mask is None else function(mask, leaf),
        masks,
        params,
        is_leaf=lambda node: node is None,
    )


def find_masks(opt_state: PyTree) -> PyTree | None:
    """The masks that an optimizer state holds, None where it holds none."""
    states = jax.tree.leaves(opt_state, is_leaf=lambda node: isinstance(node, MaskState))
    return next((state.masks for state in states if isinstance(state, MaskState)), None)
