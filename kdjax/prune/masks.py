"""Masks as pure functions of scores: bool, True = kept.

Every mask that counts rounds by `pruned_count`, and breaks ties by position: among equal scores
the earlier entry is pruned first, so a constant tensor is pruned to the same count as any other.
A sparsity may be traced; then it is clipped to [0, 1], and only a Python number is checked.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int, UInt

from kdjax.types import BadInput, PyTree


def check_sparsity(sparsity: Float[Array, ""] | float, field: str = "prune.sparsity") -> None:
    """Refuses a Python number outside [0, 1), in the name of `field`; arrays pass unseen.

    Raises:
      BadInput: as said.
    """
    if isinstance(sparsity, (int, float)) and not 0 <= sparsity < 1:
        raise BadInput(field, f"{sparsity} is not in [0, 1)")


def pruned_count(
    n: Int[Array, "..."] | int,
    sparsity: Float[Array, "..."] | float,
    *,
    at_least: int = 1,
) -> Int[Array, "..."]:
    """How many of `n` entries are pruned: `round(sparsity * n)`, but `at_least` are kept.

    The product is taken in float32 and rounded half to even. Above 2**24 entries that counts in
    steps of float32: of 2 from there on, of 4 from 2**25, and so on.
    """
    rounded = jnp.round(jnp.asarray(sparsity, jnp.float32) * n).astype(jnp.int32)
    return jnp.clip(rounded, 0, n - at_least)


def _ranks(score: Float[Array, "..."]) -> UInt[Array, "..."]:
    """Whole numbers in the order of the scores: equal where they are, as 0 and -0, NaN the highest."""
    if score.dtype.itemsize < 4:
        score = score.astype(jnp.float32)
    score = jnp.where(score == 0, jnp.zeros((), score.dtype), score)
    score = jnp.where(jnp.isnan(score), jnp.full((), jnp.nan, score.dtype), score)
    unsigned = jnp.dtype(f"uint{8 * score.dtype.itemsize}")
    bits = lax.bitcast_convert_type(score, unsigned)
    sign = np.array(1 << (8 * unsigned.itemsize - 1), unsigned)
    return jnp.where(bits >= sign, ~bits, bits | sign)


def _largest(
    bits: int, dtype: Any, holds: Callable[[UInt[Array, ""]], Bool[Array, ""]]
) -> UInt[Array, ""]:
    """The largest number of so many bits that a condition holds for: for all below it, too, or 0."""

    def body(i, found):
        tried = found | (jnp.ones((), dtype) << (bits - 1 - i).astype(dtype))
        return jnp.where(holds(tried), tried, found)

    return lax.fori_loop(0, bits, body, jnp.zeros((), dtype))


def _all_but_lowest(ranks: UInt[Array, " n"], pruned: Int[Array, ""] | int) -> Bool[Array, " n"]:
    """False for the `pruned` lowest, of equals for the first.

    It counts, once for each bit of a rank and of a position: a sort takes several times as long.
    """
    last = _largest(
        8 * ranks.dtype.itemsize, ranks.dtype, lambda rank: jnp.sum(ranks < rank) < pruned
    )
    below, equal = ranks < last, ranks == last
    more = pruned - jnp.sum(below)
    place = jnp.arange(ranks.size, dtype=jnp.uint32)
    end = _largest(
        ranks.size.bit_length(),
        jnp.uint32,
        lambda end: jnp.sum(equal & (place < end)) <= more,
    )
    return ~(below | (equal & (place < end)))


def count_mask(score: Float[Array, "..."], pruned: Int[Array, ""] | int) -> Bool[Array, "..."]:
    """Keeps all but the `pruned` lowest scores.

    Among equal scores the lower flat index is pruned first; NaN is the highest of scores.

    Args:
      score: what the entries are ranked by; higher is kept.
      pruned: how many to prune, from 0 to all of them; may be traced.
    """
    return _all_but_lowest(_ranks(score.ravel()), pruned).reshape(score.shape)


def topk_mask(score: Float[Array, "..."], sparsity: Float[Array, ""] | float) -> Bool[Array, "..."]:
    """Keeps the highest scores.

    Prunes exactly `round(sparsity * n)` of the `n` entries (half to even, in float32), but always
    keeps one. Among equal scores the lower flat index is pruned first. jaxpruner keeps
    `round((1 - sparsity) * n)`, and of equals the lower index: its counts differ at halves.

    Args:
      score: what the entries are ranked by; higher is kept.
      sparsity: fraction to prune, in [0, 1); may be traced.

    Raises:
      BadInput: a sparsity that is a Python number outside [0, 1).
    """
    check_sparsity(sparsity)
    return count_mask(score, pruned_count(score.size, sparsity))


def threshold_mask(
    score: Float[Array, "..."], threshold: Float[Array, ""] | float
) -> Bool[Array, "..."]:
    """Keeps `score >= threshold`, compared in float32; it may keep nothing, or everything."""
    return score.astype(jnp.float32) >= jnp.float32(threshold)


def global_topk_masks(
    scores: PyTree, sparsity: Float[Array, ""] | float, *, at_least: int = 1
) -> PyTree:
    """Keeps the highest scores of a whole tree, in one ranking over all of its leaves.

    Prunes exactly `round(sparsity * n)` of the tree's `n` entries (half to even, in float32). The
    `at_least` highest entries of each leaf are not in question, so no layer is emptied; where they
    would have been pruned, the next entries of the ranking are, and the count stays exact until
    nothing else is left. Among equal scores the earlier leaf goes first, in the order of
    `jax.tree.leaves`, and in one leaf the lower flat index.

    Scores of different leaves are compared as they are. A layer of small weights loses nearly all
    of them to magnitude; give `jax.tree.map(scores.normalized, ...)` to compare by each layer's own
    norm, as jaxpruner does by default.

    Args:
      scores: arrays of any shapes, ranked in float32; None where a parameter is never pruned.
      sparsity: fraction to prune of the arrays together, in [0, 1); may be traced.
      at_least: entries that each leaf keeps (all of a leaf that has fewer); with 0 a leaf may be
        emptied, but the tree keeps one.

    Returns:
      Masks in the structure of `scores`, None where the scores are None.

    Raises:
      BadInput: a sparsity that is a Python number outside [0, 1), a negative `at_least`, or no
        array in the tree.
    """
    check_sparsity(sparsity)
    if at_least < 0:
        raise BadInput("prune.at_least", f"{at_least} is not at least 0")
    leaves, structure = jax.tree.flatten(scores)
    if not leaves:
        raise BadInput(
            "prune.scores", "the tree has no array", "give scores of one parameter or more"
        )
    own = [min(at_least, leaf.size) for leaf in leaves]
    safe = [
        count_mask(leaf, leaf.size - kept).ravel() for leaf, kept in zip(leaves, own, strict=True)
    ]
    ranks = _ranks(jnp.concatenate([leaf.astype(jnp.float32).ravel() for leaf in leaves]))
    ranks = jnp.where(jnp.concatenate(safe), np.uint32(2**32 - 1), ranks)  # above that of NaN
    pruned = pruned_count(ranks.size, sparsity, at_least=max(1, sum(own)))
    masks, begin, flat = [], 0, _all_but_lowest(ranks, pruned)
    for leaf in leaves:
        masks.append(flat[begin : begin + leaf.size].reshape(leaf.shape))
        begin += leaf.size
    return jax.tree.unflatten(structure, masks)


def _length(score: Float[Array, "..."], axis: int) -> int:
    if not -score.ndim <= axis < score.ndim:
        raise BadInput(
            "prune.axis",
            f"{axis} is no axis of the shape {list(score.shape)}",
            "leave the tensor out of prune.prunable, or give another axis",
        )
    return score.shape[axis]


def nm_mask(score: Float[Array, "..."], *, n: int, m: int, axis: int = -2) -> Bool[Array, "..."]:
    """Keeps the `n` highest of every `m` consecutive entries along an axis (2:4 and the like).

    Among equal scores of a group the lower index is pruned first (four equal ones give 0, 0, 1, 1),
    as in jaxpruner.

    Args:
      score: what the entries are ranked by; higher is kept.
      n: entries to keep of each group.
      m: entries of a group; divides the axis.
      axis: the axis that is contracted, for hardware that skips the zeros: -2, the input, for the
        kernels of flax's `Dense` and `Conv`.

    Raises:
      BadInput: not `0 < n <= m`, no such axis, or `m` does not divide its length.

    Reference: Mishra et al. 2021, https://arxiv.org/abs/2104.08378, sec. 3.
    """
    if not 0 < n <= m:
        raise BadInput("prune.n, m", f"{n}, {m} are not 0 < n <= m")
    length = _length(score, axis)
    if length % m:
        raise BadInput(
            "prune.m",
            f"{m} does not divide {length}, the length of axis {axis} of {list(score.shape)}",
            "leave the tensor out of prune.prunable, or give a divisor",
        )
    last = jnp.moveaxis(score, axis, -1)
    groups = last.reshape(*last.shape[:-1], length // m, m)
    own = _ranks(groups)[..., None]
    others, first = jnp.swapaxes(own, -1, -2), np.tri(m, k=-1, dtype=bool)
    lower = (others < own) | ((others == own) & lax.broadcast_to_rank(first, own.ndim))
    return jnp.moveaxis((lower.sum(-1) >= m - n).reshape(last.shape), -1, axis)


def _pool_blocks(
    score: Float[Array, "..."], block: tuple[int, ...], pool: Callable[..., Array]
) -> Float[Array, "..."]:
    """One number for each block: where the length does not divide, the last block has the rest.

    A ragged axis is cut in two, so that `pool` only ever sees the cells that there are.
    """
    shape, within = [*score.shape[: -len(block)]], []
    for axis, size in zip(range(-len(block), 0), block, strict=True):
        length = score.shape[axis]
        whole = length - length % size
        if 0 < whole < length:
            parts = jnp.split(score, [whole], axis)
            return jnp.concatenate([_pool_blocks(part, block, pool) for part in parts], axis)
        size = min(size, length)
        within.append(len(shape) + 1)
        shape += [length // size, size]
    return pool(score.reshape(shape), axis=tuple(within))


def block_mask(
    score: Float[Array, "..."],
    sparsity: Float[Array, ""] | float,
    *,
    block: tuple[int, ...],
    pool: Callable[..., Array] = jnp.mean,
) -> Bool[Array, "..."]:
    """Keeps whole blocks of the last axes, those whose pooled score is highest.

    The blocks tile the last `len(block)` axes, which for a flax kernel end in (input, output);
    each place of the axes before them, such as the taps of a convolution, has blocks of its own.
    (jaxpruner blocks the first two axes.) All blocks of the tensor are in one ranking, and exactly
    `pruned_count` of them go. Where an axis does not divide, its last blocks are smaller: they are
    pooled over the cells they have and count as one each, so the fraction of entries pruned may
    then differ from `sparsity`. Among equal blocks the earlier one is pruned first, in the flat
    order of the blocks.

    Args:
      score: what is pooled, in float32; higher is kept.
      sparsity: fraction of blocks to prune, in [0, 1); may be traced.
      block: lengths of a block on the last axes.
      pool: reduction with a keyword `axis` that takes a tuple: `jnp.mean`, `jnp.max`. A sum would
        be unfair to the smaller blocks at the edge.

    Raises:
      BadInput: a sparsity that is a Python number outside [0, 1), or a block that has no axis,
        more axes than the score, or a length below 1.
    """
    check_sparsity(sparsity)
    if not 0 < len(block) <= score.ndim or min(block) < 1:
        raise BadInput(
            "prune.block",
            f"{list(block)} does not fit the shape {list(score.shape)}",
            f"give lengths of at least 1 for at most {score.ndim} axes",
        )
    kept = topk_mask(_pool_blocks(score.astype(jnp.float32), block, pool), sparsity)
    for axis, size in zip(range(-len(block), 0), block, strict=True):
        kept = lax.slice_in_dim(jnp.repeat(kept, size, axis), 0, score.shape[axis], axis=axis)
    return kept


def channel_mask(
    score: Float[Array, "..."],
    sparsity: Float[Array, ""] | float,
    *,
    axis: int = -1,
    size: int = 1,
) -> Bool[Array, "..."]:
    """Keeps whole slices along an axis, those whose summed score is highest.

    The scores are summed over every other axis and over each run of `size` consecutive channels, in
    float32, and exactly `pruned_count` of the runs go. Among equal runs the earlier one is pruned
    first.

    Args:
      score: what is summed; higher is kept.
      sparsity: fraction of runs to prune, in [0, 1); may be traced.
      axis: the axis of the channels: -1, the output, for a flax kernel.
      size: channels that are kept or pruned together: the width of an attention head, where the
        heads lie one after another on the axis.

    Returns:
      The mask in the full shape of `score`.

    Raises:
      BadInput: a sparsity that is a Python number outside [0, 1), no such axis, or a size that
        does not divide its length.
    """
    check_sparsity(sparsity)
    length = _length(score, axis)
    if size < 1 or length % size:
        raise BadInput(
            "prune.size",
            f"{size} does not divide {length}, the length of axis {axis} of {list(score.shape)}",
            "give a divisor",
        )
    first = jnp.moveaxis(score.astype(jnp.float32), axis, 0)
    runs = first.reshape(length // size, math.prod(first.shape[1:]) * size).sum(-1)
    kept = jnp.repeat(topk_mask(runs, sparsity), size)
    shape = [1] * score.ndim
    shape[axis] = length
    return jnp.broadcast_to(kept.reshape(shape), score.shape)
