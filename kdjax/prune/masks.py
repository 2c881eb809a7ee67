"""Masks as pure functions of scores: bool, True = kept."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from kdjax.types import PyTree


def topk_mask(score: Float[Array, "..."], sparsity: Float[Array, ""] | float) -> Bool[Array, "..."]:
    """Keeps the highest scores.

    Prunes exactly `round(sparsity * n)` of the `n` entries (half to even, in float32), but always
    keeps one. Among equal scores the lower flat index is pruned first, so a constant tensor is
    pruned to the same count as any other.

    Args:
      score: what the entries are ranked by; higher is kept.
      sparsity: fraction to prune, in [0, 1]; may be traced.
    """
    n = score.size
    pruned = jnp.minimum(jnp.round(jnp.float32(sparsity) * n), n - 1).astype(jnp.int32)
    order = jnp.argsort(score.ravel(), stable=True)
    rank = jnp.zeros(n, jnp.int32).at[order].set(jnp.arange(n, dtype=jnp.int32))
    return (rank >= pruned).reshape(score.shape)


def apply_masks(masks: PyTree, tree: PyTree) -> PyTree:
    """`tree` with exact zeros where a mask is False; leaves whose mask is None stay as they are."""
    return jax.tree.map(
        lambda mask, leaf: leaf if mask is None else jnp.where(mask, leaf, jnp.zeros_like(leaf)),
        masks,
        tree,
        is_leaf=lambda node: node is None,
    )
