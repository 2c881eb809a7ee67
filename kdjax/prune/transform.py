"""Masks around an optimizer: what is pruned stays zero, and the optimizer never hears of it."""

from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Bool, Int

from kdjax import tree
from kdjax.prune.allocation import matching
from kdjax.types import BadInput, PyTree

Rule: TypeAlias = Callable[..., PyTree]
"""`rule(count, *, weights, grads, masks) -> masks`, pure; see `kdjax.prune.rules`.

`count` is that of the update, int32 []. The three trees have one structure, that of the parameters
with None where a parameter is never pruned, and so has the result: `weights` are those that the
update would produce, zero where pruned; `grads` are dense, as the loss gave them; `masks` are the
old ones.
"""


class MaskState(NamedTuple):
    """State of held masks: the count of updates, the masks, the state of the inner optimizer.

    `masks` has the structure of the parameters, with None where a parameter is never pruned.
    """

    count: Int[Array, ""]  # pyright: ignore[reportIncompatibleMethodOverride]  (as optax names it)
    masks: PyTree
    inner: optax.OptState


def hold(
    inner: optax.GradientTransformation,
    rule: Rule,
    *,
    prunable: str,
    begin_step: int,
    end_step: int,
    every_steps: int,
    masks: PyTree | None = None,
) -> optax.GradientTransformation:
    """`inner`, with the parameters held at masks that a rule finds. Must be the outermost.

    The rule is asked at `begin_step`, each `every_steps` after it, and at `end_step`; on all other
    updates nothing is ranked. On every update:

    * The gradient of what is pruned is zero before `inner` sees it, so it enters no clipping norm,
      trust ratio or moment; the rule alone sees the dense gradient.
    * The update of a pruned weight is `-param`, so `optax.apply_updates` leaves an exact +0.0:
      weight decay cannot bring it back, and the train step needs no hook.
    * Whatever `inner` keeps in the shape of a pruned entry (momentum, Adam's two moments) is zero.

    A weight that the rule takes back starts at zero, is still zero after that very update, and is
    trained from the next one, with fresh moments. Adam's bias correction counts the updates of all
    weights, not those of this one, so its first step is up to `(1 - b1) / sqrt(1 - b2)` learning
    rates long: 3.2 with the usual decays.

    Args:
      inner: the optimizer, with its clipping.
      rule: `(count, *, weights, grads, masks) -> masks`, see `Rule`.
      prunable: pattern that matches the whole name of each parameter to prune, such as
        `.*/kernel`.
      begin_step: first update that asks the rule.
      end_step: last one; the masks are constant after it.
      every_steps: distance between the updates that ask the rule.
      masks: to start with, for just those parameters that `prunable` matches: a tree of bool with
        their names. None starts dense. Start from `apply_masks(masks, params)`: if it has not been
        done the first update does it, after a gradient of the dense network.

    Raises:
      BadInput: `every_steps` is below 1, or not `0 <= begin_step <= end_step`; at `init`, when
        `prunable` matches no parameter, or not those that have a mask.
    """
    if every_steps < 1:
        raise BadInput("prune.every_steps", f"{every_steps} is not at least 1")
    if not 0 <= begin_step <= end_step:
        raise BadInput(
            "prune.begin_step, end_step", f"{begin_step}, {end_step} are not 0 <= begin <= end"
        )

    def start(params):
        chosen = matching(params, prunable, "prune.prunable")
        if masks is None:
            return {name: jnp.ones(leaf.shape, bool) for name, leaf in chosen.items()}
        given = _given(masks, params)
        if odd := sorted(set(given).symmetric_difference(chosen)):
            has = "a mask, but prunable does not match it" if odd[0] in given else "no mask"
            raise BadInput("prune.masks", f"{odd[0]!r} has {has}", "masks and prunable must agree")
        return given

    def is_due(count):
        regular = ((count - begin_step) % every_steps == 0) | (count == end_step)
        return regular & (begin_step <= count) & (count <= end_step)

    def renewed(count, old, trees):
        return lax.cond(is_due(count), lambda: rule(count, masks=old, **trees()), lambda: old)

    return _held(inner, start, renewed)


def hold_fixed(inner: optax.GradientTransformation, masks: PyTree) -> optax.GradientTransformation:
    """`inner`, with the parameters held at these masks: a lottery ticket, or a pruned model.

    What `hold` says of every update is true here, from the first update on. Start from
    `apply_masks(masks, params)`: if it has not been done the first update does it, after a gradient
    of the dense network.

    Args:
      inner: the optimizer, with its clipping.
      masks: tree of bool, named like the parameters; those without a mask, or with None, are never
        pruned.

    Raises:
      BadInput: at `init`, when a mask has no parameter of its name and shape, is not bool, or when
        there is none at all.

    Reference: Frankle and Carbin 2018, https://arxiv.org/abs/1803.03635, sec. 1.
    """
    return _held(inner, lambda params: _given(masks, params), lambda count, old, trees: old)


def _held(
    inner: optax.GradientTransformation,
    start: Callable[[PyTree], Mapping[str, Array]],
    renewed: Callable[[Array, PyTree, Callable[[], Mapping[str, PyTree]]], PyTree],
) -> optax.GradientTransformation:
    """The wrapper, for any way to start masks and to renew them.

    Args:
      inner: the optimizer.
      start: `params -> {name: mask}` of the prunable ones.
      renewed: `(count, masks, trees) -> masks`; `trees()` gives what else a rule is asked with.
    """

    def init(params):
        by_name = start(params)
        masks = jax.tree.unflatten(
            jax.tree.structure(params), [by_name.get(name) for name in tree.named_leaves(params)]
        )
        return MaskState(
            jnp.zeros([], jnp.int32), masks, inner.init(tree.apply_masks(masks, params))
        )

    def update(updates, state, params=None):
        if params is None:
            raise ValueError("hold needs params: tx.update(grads, state, params)")
        count, old, inner_state = state
        grads, held = updates, tree.apply_masks(old, params)
        updates, inner_state = inner.update(tree.apply_masks(old, grads), inner_state, held)

        def trees():
            proposed = tree.apply_masks(old, optax.apply_updates(held, updates))
            return {"weights": _prunable(old, proposed), "grads": _prunable(old, grads)}

        masks = renewed(count, old, trees)
        # What comes back is zero at this update, and trained from the next one.
        live = jax.tree.map(jnp.logical_and, old, masks)
        updates = jax.tree.map(
            lambda mask, u, p: u if mask is None else jnp.where(mask, u, -p),
            live,
            updates,
            params,
            is_leaf=lambda node: node is None,
        )
        inner_state = _forget(inner, inner_state, live)
        return updates, MaskState(jnp.asarray(optax.safe_increment(count)), masks, inner_state)

    return optax.GradientTransformation(init, update)


def _prunable(masks: PyTree, params: PyTree) -> PyTree:
    """`params` with None where the mask is None."""
    return jax.tree.map(
        lambda mask, leaf: None if mask is None else leaf,
        masks,
        params,
        is_leaf=lambda node: node is None,
    )


def _forget(
    inner: optax.GradientTransformation, inner_state: optax.OptState, masks: PyTree
) -> optax.OptState:
    """Zeros what `inner` keeps of pruned entries; sums over several entries are left as they are."""

    def forget(kept, mask):
        # optax.masked leaves a node without arrays where it does not look.
        if mask is None or isinstance(kept, optax.MaskedNode) or kept.shape != mask.shape:
            return kept
        return jnp.where(mask, kept, jnp.zeros_like(kept))

    return optax.tree_utils.tree_map_params(
        inner, forget, inner_state, masks, is_leaf=lambda node: isinstance(node, optax.MaskedNode)
    )


def _given(masks: PyTree, params: PyTree) -> dict[str, Bool[Array, "..."]]:
    """The masks that a user gives, by name."""
    named, given = tree.named_leaves(params), tree.named_leaves(masks)
    if not given:
        raise BadInput("prune.masks", "there is none", "give one for each parameter that is pruned")
    for name, mask in given.items():
        if name not in named:
            raise BadInput(
                "prune.masks",
                f"{name!r} is no parameter",
                f"the first of them is {next(iter(named))!r}",
            )
        if mask.dtype != bool or mask.shape != named[name].shape:
            raise BadInput(
                "prune.masks",
                f"{name!r} is {mask.dtype}{list(mask.shape)}",
                f"it must be bool{list(named[name].shape)}, True where a weight is kept",
            )
    # Buffers of the state's own: a step donates it.
    return {name: jnp.array(mask) for name, mask in given.items()}


def find_masks(opt_state: PyTree) -> PyTree | None:
    """The masks that an optimizer state holds, None where it holds none.

    Raises:
      BadInput: `hold` or `hold_fixed` is inside another transformation, which may change the updates
        that leave zeros, or show what is pruned to what comes before.
    """
    if isinstance(opt_state, MaskState):
        return opt_state.masks
    states = jax.tree.leaves(opt_state, is_leaf=lambda node: isinstance(node, MaskState))
    if any(isinstance(state, MaskState) for state in states):
        raise BadInput(
            "prune.hold",
            f"it is inside a transformation whose state is a {type(opt_state).__name__}, such as "
            "optax.chain, and zeros may not stay zero",
            "put it around the whole optimizer: hold(optax.chain(...), rule, ...)",
        )
    return None
