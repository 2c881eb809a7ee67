"""How much the loss rises when one group of units after another loses some of them."""

import functools
import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Bool, Float

from kdjax import tree
from kdjax.loss_deltas import loss_deltas
from kdjax.shrink.groups import Groups
from kdjax.shrink.scores import Scores, keep_each, unit_masks
from kdjax.types import BadInput, PyTree

Curves = Mapping[str, Mapping[float, float]]
"""`{group: {sparsity: increase of the loss}}`, as `kdjax.prune.allocation.by_sensitivity` reads it."""

Keep = Mapping[str, Bool[np.ndarray, " units"]]
"""Of each group the units that stay."""


def sensitivity(
    loss: Callable[[PyTree, Any], Float[Array, ""]],
    groups: Groups,
    scores: Scores,
    params: PyTree,
    batches: Iterable[Any],
    *,
    sparsities: Sequence[float],
    multiple: int = 1,
) -> dict[str, dict[float, float]]:
    """`loss(masked) - loss(whole)` where one group alone has lost its worst units.

    A unit is masked in every parameter that it has a part in: the kernels that make it, the norms
    and biases it goes through and the kernels that read it. Layer by layer this would say little:
    where a residual sum joins layers, a channel that one of them no longer makes still comes from
    the others, and the change reads as nearly zero although taking the channel away would hurt.

    It is compiled once for all groups, sparsities and batches. No group is trained again after it was
    masked.

    Args:
      loss: `(params, batch) -> mean loss`, pure, in evaluation mode. Labels are not needed: the KL
        divergence from what the whole model, or a teacher, says of the batch is a loss as well.
      groups: see `groups_of`.
      scores: of their units; a group without any is left out.
      params: of the whole model.
      batches: of one shape; gone through once. The mean over batches is taken, each with the same
        weight.
      sparsities: shares of a group's units to take away, each in (0, 1). `keep_each` says how they
        are rounded; where nothing falls, the increase is 0.
      multiple: see `keep_each`; that of the masks to come.

    Returns:
      For each group its increase at each sparsity, ascending, in the unit of the loss. A curve ends
      before the first loss that is not finite: the group cannot be pruned so far.

    Raises:
      BadInput: no sparsity, one outside (0, 1), no batch, or a loss of the whole model that is not
        finite.

    Reference: Li et al. 2017, https://arxiv.org/abs/1608.08710, sec. 3.2; for single weights Han et
      al. 2015, https://arxiv.org/abs/1506.02626, sec. 4.1 and fig. 6.
    """
    whole = whole_of(groups)
    changes = fallen(groups, scores, sparsities, multiple=multiple)

    def masked_loss(keep: Mapping[str, Array], batch: Any) -> Float[Array, ""]:
        return loss(tree.apply_masks(unit_masks(groups, keep, params), params), batch)

    return curves(loss_deltas(masked_loss, whole, changes, batches), groups, scores, sparsities)


def whole_of(groups: Groups) -> Keep:
    """All units."""
    return {group.name: np.ones(group.size, bool) for group in groups}


def fallen(
    groups: Groups, scores: Scores, sparsities: Sequence[float], *, multiple: int = 1
) -> dict[tuple[str, float], Keep]:
    """By group and sparsity, what is kept if that group alone has lost its worst units.

    One that would lose none is left out.

    Raises:
      BadInput: a sparsity is outside (0, 1), or there is none.
    """
    if not sparsities or not all(0 < sparsity < 1 for sparsity in sparsities):
        raise BadInput("sparsities", f"{list(sparsities)} are not all in (0, 1), or there is none")
    whole, found = whole_of(groups), {}
    best = jax.jit(functools.partial(keep_each, groups, multiple=multiple))
    for sparsity in sorted(set(sparsities)):
        kept = jax.device_get(best(scores, sparsity))
        for name, keep in kept.items():
            if not keep.all():
                found[name, sparsity] = {**whole, name: keep}
    return found


def curves(
    rises: Mapping[tuple[str, float], float],
    groups: Groups,
    scores: Scores,
    sparsities: Sequence[float],
) -> dict[str, dict[float, float]]:
    """The increases of `fallen` by group, 0 where nothing fell; cut before one that is not finite."""
    ascending = sorted(set(sparsities))

    def curve(name: str) -> dict[float, float]:
        points = [(s, rises.get((name, s), 0.0)) for s in ascending]
        return dict(itertools.takewhile(lambda point: math.isfinite(point[1]), points))

    return {group.name: curve(group.name) for group in groups if group.name in scores}


def reach(curves: Curves, sizes: Mapping[str, int]) -> float:
    """The share of all units that is gone when each group is pruned as far as it was measured.

    `kdjax.prune.allocation.by_sensitivity` allocates at most this much.

    Args:
      curves: see `sensitivity`.
      sizes: units of each of these groups, or other weights.
    """
    gone = sum(sizes[name] * max(curve, default=0.0) for name, curve in curves.items())
    return gone / max(sum(sizes[name] for name in curves), 1)
