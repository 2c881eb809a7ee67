"""How much each unit of a group is worth: pure functions, on the host or inside a step."""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from kdjax import tree
from kdjax.shrink.groups import Group, Groups, Member
from kdjax.shrink.taps import Seen
from kdjax.types import BadInput, PyTree

Scores = Mapping[str, Float[Array, " size"]]
"""Of the units of each group, by its name; higher is kept."""


def member_scores(member: Member, entries: Float[Array, "..."]) -> Float[Array, " size"]:
    """The sum of the scores of all entries that fall with each unit."""
    others = tuple(axis for axis in range(entries.ndim) if axis != member.axis)
    return entries.astype(jnp.float32).sum(others)[member.positions].sum(-1)


def group_l1(groups: Groups, params: PyTree) -> Scores:
    """Mean over the members of the L1 norm of what falls with a unit, relative to the group's mean.

    Members are the kernels that make the units, the kernels that read them and the scales in between;
    biases do not count.

    Reference: Fang et al. 2023, https://arxiv.org/abs/2301.12900, sec. 3.4, with p = 1 and the mean.
    """
    return _over_members(groups, jax.tree.map(jnp.abs, params), _counted)


def group_l2(groups: Groups, params: PyTree) -> Scores:
    """The same with squares: no root is taken, as in Torch-Pruning."""
    return _over_members(groups, jax.tree.map(jnp.square, params), _counted)


def producer_l1(groups: Groups, params: PyTree) -> Scores:
    """The L1 norm of the filter that makes a unit first, relative to the group's mean.

    Reference: Li et al. 2017, https://arxiv.org/abs/1608.08710, sec. 3.1.
    """
    return _over_members(groups, jax.tree.map(jnp.abs, params), lambda group: group.members[:1])


def scale_l1(groups: Groups, params: PyTree) -> Scores:
    """Mean absolute scale of the norms that a unit goes through; not relative, to be ranked globally.

    Groups without a scale are left out.

    Reference: Liu et al. 2017 (network slimming), https://arxiv.org/abs/1708.06519, sec. 3.
    """
    found = {}
    for group in groups:
        scales = [m for m in _in_params(group) if m.name.endswith("/scale")]
        if scales:
            found[group.name] = _mean_of(scales, jax.tree.map(jnp.abs, params))
    return found


def taylor(groups: Groups, params: PyTree, grads: PyTree) -> Scores:
    """Squared sum of `weight * gradient` over all that falls with a unit: what its loss would cost.

    Reference: Molchanov et al. 2019, https://arxiv.org/abs/1906.10771, eq. 8, on the joint gate of all
      members of the group.
    """
    leaves = tree.named_leaves(jax.tree.map(lambda w, g: w * g, params, grads))
    found = {}
    for group in groups:
        parts = [
            member_scores(m, leaves[_name(m)]) for m in _in_params(group) if "in" not in m.roles
        ]
        found[group.name] = jnp.square(sum(parts, jnp.zeros(group.size)))
    return found


def random(groups: Groups, key: jax.Array) -> Scores:
    """A yardstick."""
    return {
        group.name: jax.random.uniform(jax.random.fold_in(key, i), (group.size,))
        for i, group in enumerate(groups)
    }


def activity(groups: Groups, seen: Mapping[int, Seen]) -> Scores:
    """Mean absolute activation of a unit where it is read, relative to the group's mean.

    Reference: feature squeezing scores what a layer gives instead of its weights; Hu et al. 2016,
      https://arxiv.org/abs/1607.03250, with the mean activation in the place of the share of zeros.
    """
    readers = {c.name: c for c in groups.contractions}
    found = {}
    for group in groups:
        parts = []
        for member in group.members:
            contraction = readers.get(member.name)
            if contraction is None or member.axis not in contraction.weight_axes:
                continue
            at = contraction.weight_axes.index(member.axis)
            values = seen[contraction.number].mean_abs
            others = tuple(axis for axis in range(values.ndim) if axis != at)
            parts.append(values.mean(others)[member.positions].mean(-1))
        if parts:
            found[group.name] = _relative(sum(parts[1:], parts[0]) / len(parts))
    return found


def _counted(group: Group) -> list[Member]:
    return [m for m in _in_params(group) if not m.name.endswith("/bias")]


def _over_members(
    groups: Groups, entries: PyTree, members: Callable[[Group], list[Member] | tuple[Member, ...]]
) -> Scores:
    return {group.name: _relative(_mean_of(members(group), entries)) for group in groups}


def _mean_of(members: list[Member] | tuple[Member, ...], entries: PyTree) -> Array:
    leaves = tree.named_leaves(entries)
    parts = [member_scores(member, leaves[_name(member)]) for member in members]
    return sum(parts[1:], parts[0]) / len(parts)


def _relative(score: Array) -> Array:
    return score / jnp.maximum(score.mean(), jnp.finfo(jnp.float32).tiny)


def _in_params(group: Group) -> list[Member]:
    return [member for member in group.members if member.name.startswith("params/")]


def _name(member: Member) -> str:
    return member.name.removeprefix("params/")


def keep_each(
    groups: Groups,
    scores: Scores,
    sparsity: Float[Array, ""] | Mapping[str, float | Float[Array, ""]] | float,
    *,
    multiple: int = 1,
) -> dict[str, Array]:
    """Keeps the best units of each group by itself.

    Of `n` units `n - round(sparsity * n)` stay (half to even, in float32), rounded up to a multiple
    of `multiple` where the group has as many, and at least one. Among equal scores the later unit
    stays. Groups without a score stay whole.

    Args:
      groups: see `find_groups`.
      scores: of their units.
      sparsity: share of the units to take away, in [0, 1); of each group by name, or of all.
      multiple: widths that are multiples of 8 or 16 run faster.

    Raises:
      BadInput: a sparsity is outside [0, 1), or names no group.
    """
    if isinstance(sparsity, Mapping):
        unknown = sorted(set(sparsity) - set(groups.sizes))
        if unknown:
            raise BadInput(
                "sparsity", f"there is no group {unknown[0]!r}", f"they are {list(groups.sizes)}"
            )
    found = {}
    for group in groups:
        wanted = sparsity.get(group.name, 0.0) if isinstance(sparsity, Mapping) else sparsity
        if isinstance(wanted, float | int) and not 0 <= wanted < 1:
            raise BadInput("sparsity", f"{wanted} is not in [0, 1)")
        if group.name not in scores:
            continue
        n = group.size
        count = n - jnp.round(jnp.float32(wanted) * n).astype(jnp.int32)
        count = jnp.minimum(-(-jnp.maximum(count, 1) // multiple) * multiple, n)
        found[group.name] = _best(scores[group.name], count)
    return found


def keep_best(
    groups: Groups,
    scores: Scores,
    sparsity: Float[Array, ""] | float,
    *,
    at_least: float = 0.1,
    multiple: int = 1,
) -> dict[str, Array]:
    """Keeps the best units of all groups in one ranking, but a share of each.

    Args:
      groups: see `find_groups`.
      scores: of their units, on one scale.
      sparsity: share of all scored units to take away, in [0, 1).
      at_least: share of each group that stays, rounded up.
      multiple: of each group so many more stay that its width is one, as in `keep_each`.

    Raises:
      BadInput: the sparsity is outside [0, 1).
    """
    if isinstance(sparsity, float | int) and not 0 <= sparsity < 1:
        raise BadInput("sparsity", f"{sparsity} is not in [0, 1)")
    names = [group.name for group in groups if group.name in scores]
    every = []
    for name in names:
        score, n = scores[name], len(scores[name])
        floor = max(1, -int(-at_least * n // 1))
        every.append(jnp.where(_best(score, jnp.int32(floor)), jnp.inf, score))
    together = jnp.concatenate(every)
    count = len(together) - jnp.round(jnp.float32(sparsity) * len(together)).astype(jnp.int32)
    keep = _best(together, count) | jnp.isinf(together)
    found, begin = {}, 0
    for name in names:
        n = len(scores[name])
        left = keep[begin : begin + n].sum()
        found[name] = _best(scores[name], jnp.minimum(-(-left // multiple) * multiple, n))
        begin += n
    return found


def _best(score: Array, count: Array) -> Array:
    order = jnp.argsort(score, stable=True)
    rank = jnp.zeros(len(score), jnp.int32).at[order].set(jnp.arange(len(score), dtype=jnp.int32))
    return rank >= len(score) - count


def unit_masks(groups: Groups, keep: Mapping[str, Array | np.ndarray], params: PyTree) -> PyTree:
    """Masks of the parameters, False for every entry that falls with a unit; None where none can.

    Args:
      groups: see `find_groups`.
      keep: which units of each group stay; a group that is not named stays whole.
      params: for their names and shapes.
    """
    axes: dict[tuple[str, int], list[tuple[Member, Array]]] = {}
    for group in groups:
        for member in _in_params(group):
            kept = jnp.asarray(keep.get(group.name, np.ones(group.size, bool)))
            axes.setdefault((_name(member), member.axis), []).append((member, kept))
    names = {name for name, _ in axes}

    def one(name, leaf):
        if name not in names:
            return None
        mask = jnp.ones(leaf.shape, bool)
        for axis in range(leaf.ndim):
            for member, kept in axes.get((name, axis), ()):
                along = jnp.ones(leaf.shape[axis], bool)
                along = along.at[member.positions].set(kept[:, None], mode="drop")
                shape = [leaf.shape[axis] if i == axis else 1 for i in range(leaf.ndim)]
                mask &= jnp.broadcast_to(along.reshape(shape), leaf.shape)
        return mask

    leaves = [one(name, leaf) for name, leaf in tree.named_leaves(params).items()]
    return jax.tree.unflatten(jax.tree.structure(params), leaves)
