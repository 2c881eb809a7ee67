"""Rules: which weights the next masks keep. Each factory returns a pure function for `hold`.

A score is `(weight, grad, key) -> score` of one tensor, in its shape: higher is kept. `grad` is
dense, and `key` is the tensor's own at this update, None where the rule was given no key:

    gradual(cubic(0.8, begin_step=0, end_step=9000))                        # magnitude
    gradual(schedule, score=lambda w, g, key: saliency(w, g))
    gradual(schedule, score=lambda w, g, key: random(key, w), key=jax.random.key(0))
    gradual(schedule, mask=lambda score, sparsity: nm_mask(score, n=2, m=4))
    gradual(schedule, mask=lambda score, sparsity: channel_mask(score, sparsity, axis=-1))
    gradual({name: cubic(s, begin_step=0, end_step=9000) for name, s in allocation.items()})
    gradual_global(schedule, mask=global_topk_masks)
"""

from collections.abc import Callable, Mapping
from typing import TypeAlias

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Key

from kdjax import tree
from kdjax.prune.allocation import allocated
from kdjax.prune.masks import count_mask, topk_mask
from kdjax.prune.transform import Rule
from kdjax.types import BadInput, PyTree

Score: TypeAlias = Callable[[Array, Array, Key[Array, ""] | None], Array]
"""`(weight, grad, key) -> score` of one tensor."""


def _magnitude(weight: Array, grad: Array, key: Key[Array, ""] | None) -> Array:
    return jnp.abs(weight)


def _keys(key: Key[Array, ""], count: Int[Array, ""], masks: PyTree) -> PyTree:
    """A key for each tensor at this update."""
    leaves, structure = jax.tree.flatten(masks)
    key = jax.random.fold_in(key, count)
    return jax.tree.unflatten(
        structure, [jax.random.fold_in(key, place) for place in range(len(leaves))]
    )


def _ranked(score: Score, key, count, *, weights, grads, masks) -> PyTree:
    """Scores in float32; minus infinity where pruned, so that it stays so."""
    if key is None:
        found = jax.tree.map(lambda w, g: score(w, g, None), weights, grads)
    else:
        found = jax.tree.map(score, weights, grads, _keys(key, count, masks))
    return jax.tree.map(lambda m, s: jnp.where(m, s.astype(jnp.float32), -jnp.inf), masks, found)


def gradual(
    sparsity: optax.Schedule | Mapping[str, optax.Schedule],
    *,
    score: Score = _magnitude,
    mask: Callable[[Array, Array], Array] = topk_mask,
    key: Key[Array, ""] | None = None,
) -> Rule:
    """Prunes more and more of the lowest scores, each tensor by itself.

    What is pruned stays pruned: it scores minus infinity, and the new mask is taken within the old
    one. A mask that pools scores (blocks, channels) so sees a part that it pruned at minus infinity
    too. One that rescales them must do it in `score` instead, where there are no infinities.

    Args:
      sparsity: `count -> fraction pruned` for all tensors, or one for each of them by its name:
        `{name: cubic(s, ...)}` for an allocation. Where it falls, the masks stay as they are.
      score: `(weight, grad, key) -> score`; the magnitude of the weight unless given.
      mask: `(score, sparsity) -> mask`; `topk_mask` unless given, and then the count is its.
      key: of scores that draw.

    Raises:
      BadInput: when first asked, if the names of `sparsity` are not those of the masks.

    Reference: Zhu and Gupta 2017, https://arxiv.org/abs/1710.01878.
    """

    def targets(count, masks):
        names, structure = [*tree.named_leaves(masks)], jax.tree.structure(masks)
        if not isinstance(sparsity, Mapping):
            return jax.tree.unflatten(structure, [sparsity(count)] * len(names))
        if odd := sorted(set(names).symmetric_difference(sparsity)):
            has = "no schedule" if odd[0] in names else "a schedule, but is not pruned"
            raise BadInput(
                "prune.sparsity", f"{odd[0]!r} has {has}", "name just what prunable matches"
            )
        return jax.tree.unflatten(structure, [sparsity[name](count) for name in names])

    def rule(count, *, weights, grads, masks):
        scores = _ranked(score, key, count, weights=weights, grads=grads, masks=masks)
        return jax.tree.map(
            lambda old, s, target: old & mask(s, jnp.asarray(target, jnp.float32)),
            masks,
            scores,
            targets(count, masks),
        )

    return rule


def gradual_global(
    sparsity: optax.Schedule,
    *,
    mask: Callable[[PyTree, Array], PyTree],
    score: Score = _magnitude,
    key: Key[Array, ""] | None = None,
) -> Rule:
    """Prunes more and more of the lowest scores, in one ranking over all tensors.

    What is pruned stays pruned, as `gradual` says; a score that is to be comparable between tensors
    is normalised in `score`.

    Args:
      sparsity: `count -> fraction pruned` of all prunable entries together.
      mask: `(tree of scores, sparsity) -> tree of masks`, such as `global_topk_masks`; both have
        None where a parameter is never pruned.
      score: `(weight, grad, key) -> score`; the magnitude of the weight unless given.
      key: of scores that draw.

    Reference: Han et al. 2015, https://arxiv.org/abs/1506.02626, with one threshold for all layers.
    """

    def rule(count, *, weights, grads, masks):
        scores = _ranked(score, key, count, weights=weights, grads=grads, masks=masks)
        found = mask(scores, jnp.asarray(sparsity(count), jnp.float32))
        return jax.tree.map(jnp.logical_and, masks, found)

    return rule


def _drop_and_grow(
    mask: Bool[Array, "*shape"],
    weight: Float[Array, "*shape"],
    growth: Float[Array, "*shape"],
    fraction: Float[Array, ""],
) -> Bool[Array, "*shape"]:
    """Drops part of the kept weights, then grows as many among all that are not kept.

    Of `k` kept ones `round(fraction * k)` go (half to even, in float32). Among equals the lower flat
    index is dropped first, and the higher one grown first.
    """
    kept = mask.sum()
    moved = jnp.clip(jnp.round(fraction * kept).astype(jnp.int32), 0, kept)
    magnitude = jnp.abs(weight).astype(jnp.float32)
    left = count_mask(jnp.where(mask, magnitude, -jnp.inf), mask.size - kept + moved)
    grown = count_mask(jnp.where(left, -jnp.inf, growth.astype(jnp.float32)), mask.size - moved)
    return left | grown


def _fraction(fraction: float | optax.Schedule) -> Callable[[Array], Array]:
    if callable(fraction):
        return lambda count: jnp.asarray(fraction(count), jnp.float32)
    if not 0 < fraction < 1:
        raise BadInput("prune.fraction", f"{fraction} is not in (0, 1)")
    return lambda count: jnp.float32(fraction)


def rigl(*, fraction: float | optax.Schedule) -> Rule:
    """RigL: drops the kept weights of least magnitude, grows where the gradient is largest.

    Each tensor keeps exactly as many weights as its mask had; start from `random_masks`. As in the
    paper's algorithm, what has just been dropped may be grown again in the same update: then it was
    never gone, and keeps its value and moments. Weights that come back start at zero, see `hold`.
    In the paper an update of the masks takes the place of a step; here it comes with one, and ranks
    the weights that the step would produce.

    Args:
      fraction: of the kept weights that is dropped, in (0, 1), or a schedule of it over the count:
        the paper's is `cosine_fraction(0.3, end_step=...)`.

    Raises:
      BadInput: a number outside (0, 1).

    Reference: Evci et al. 2019, https://arxiv.org/abs/1911.11134, algorithm 1.
    """
    part = _fraction(fraction)

    def rule(count, *, weights, grads, masks):
        return jax.tree.map(
            lambda m, w, g: _drop_and_grow(m, w, jnp.abs(g), part(count)), masks, weights, grads
        )

    return rule


def sparse_evolution(key: Key[Array, ""], *, fraction: float | optax.Schedule) -> Rule:
    """SET: drops the kept weights of least magnitude, grows at random.

    Each tensor keeps exactly as many weights as its mask had; start from `random_masks`. The paper
    drops the smallest positive and the largest negative weights, a fraction of each; here they are
    ranked together, as in RigL's comparison. What has just been dropped may be drawn again: then it
    was never gone. Weights that come back start at zero, where the paper draws them.

    Args:
      key: folded with the count and with the place of each tensor.
      fraction: of the kept weights that is dropped, in (0, 1), 0.3 in the paper; or a schedule of
        it over the count.

    Raises:
      BadInput: a number outside (0, 1).

    Reference: Mocanu et al. 2017, https://arxiv.org/abs/1707.04780, algorithm 1.
    """
    part = _fraction(fraction)

    def rule(count, *, weights, grads, masks):
        return jax.tree.map(
            lambda m, w, k: _drop_and_grow(m, w, jax.random.uniform(k, w.shape), part(count)),
            masks,
            weights,
            _keys(key, count, masks),
        )

    return rule


def random_masks(key: Key[Array, ""], params: PyTree, sparsities: Mapping[str, float]) -> PyTree:
    """Masks drawn at random, each with the exact count of `topk_mask` at its sparsity.

    Args:
      key: folded with the place of each tensor among the names given, in the order of `params`.
      params: tree of arrays or shapes.
      sparsities: by the name of the parameter, in [0, 1); a parameter not named gets None.

    Raises:
      BadInput: a name is no parameter, or a sparsity is not in [0, 1).
    """
    named = allocated(params, sparsities)
    chosen = [name for name in named if name in sparsities]
    masks = {
        name: topk_mask(
            jax.random.uniform(jax.random.fold_in(key, place), named[name].shape), sparsities[name]
        )
        for place, name in enumerate(chosen)
    }
    return jax.tree.unflatten(jax.tree.structure(params), [masks.get(name) for name in named])


def straight_through(masks: PyTree, params: PyTree) -> PyTree:
    """`apply_masks(masks, params)` going forward; going back, as if nothing were masked.

    Pruned weights so keep a value and a gradient, and may return when masks are found anew from the
    parameters in each step (N:M training). The state of training is therefore not sparse: what is
    kept in the end is `apply_masks(masks, params)`. SR-STE adds `decay * param` to the gradient of
    the pruned ones, which is the gradient of `decay / 2 * |params - apply_masks(masks, params)|^2`
    as a term of the loss.

    Args:
      masks: bool, None where a parameter is never pruned.
      params: finite.

    Reference: Bengio et al. 2013, https://arxiv.org/abs/1308.3432; SR-STE: Zhou et al. 2021,
    https://arxiv.org/abs/2102.04010.
    """
    return jax.tree.map(
        lambda mask, p: (
            p if mask is None else p + lax.stop_gradient(jnp.where(mask, p, jnp.zeros_like(p)) - p)
        ),
        masks,
        params,
        is_leaf=lambda node: node is None,
    )
