"""How much of each tensor is pruned: `{"encoder/stem/conv/kernel": sparsity, ...}`.

Names are those of `kdjax.tree.named_leaves`; `params` may be arrays or their shapes
(`jax.eval_shape`). A tensor whose name is not in the answer is not pruned. All of it is Python
floats and float64, before anything is traced.
"""

import math
from collections.abc import Callable, Mapping
from typing import TypeVar

import jax.numpy as jnp
import numpy as np

from kdjax import tree
from kdjax.prune.masks import check_sparsity, pruned_count
from kdjax.types import BadInput, PyTree

T = TypeVar("T")


def matching(params: PyTree, pattern: str, field: str) -> dict[str, PyTree]:
    """The parameters whose whole names match, in the tree's order.

    Raises:
      BadInput: there is none; the line names `field`, which has the pattern.
    """
    leaves = tree.named_leaves(params)
    chosen = tree.named_leaves(tree.match(params, pattern))
    if not any(chosen.values()):
        raise BadInput(
            field,
            f"{pattern!r} matches no parameter",
            f"the first of them is {next(iter(leaves), None)!r}",
        )
    return {name: leaf for name, leaf in leaves.items() if chosen[name]}


def _size(leaf: PyTree) -> int:
    return math.prod(leaf.shape)


def uniform(params: PyTree, sparsity: float, *, prunable: str) -> dict[str, float]:
    """The same sparsity for every tensor.

    Args:
      params: tree of arrays or shapes.
      sparsity: of each tensor, in [0, 1).
      prunable: pattern that matches the whole name of each tensor to prune.

    Raises:
      BadInput: the sparsity is outside [0, 1), or the pattern matches nothing.
    """
    check_sparsity(sparsity)
    return dict.fromkeys(matching(params, prunable, "prune.prunable"), sparsity)


def erdos_renyi_kernel(
    params: PyTree,
    sparsity: float,
    *,
    prunable: str,
    power: float = 1.0,
    dense: str | None = None,
) -> dict[str, float]:
    """ERK: `density = eps * (sum(shape) / prod(shape))^power`, so wide tensors are pruned most.

    `eps` is such that the tensors together have the sparsity asked for. A tensor whose density
    would be above 1 becomes dense, and `eps` is solved again for the others until none is above.
    The sum of `sparsity * size` is exact in float64; masks then round each tensor's count to the
    nearest (`counts`), where rigl and jaxpruner take the floor, so the total may be off by half an
    entry a tensor. Only what `prunable` names counts; jaxpruner counts every tensor of two or more
    axes. A vector has density `eps`, hence is nearly always dense.

    Args:
      params: tree of arrays or shapes.
      sparsity: of all tensors of the budget together, in [0, 1).
      prunable: pattern that matches the whole name of each tensor to prune.
      power: 1 is the paper's; 0 is `uniform`.
      dense: pattern of prunable tensors that stay dense. They are out of the budget, as in rigl and
        jaxpruner: the others reach `sparsity` without making up for them.

    Raises:
      BadInput: the sparsity is outside [0, 1), a pattern matches nothing, or `dense` leaves nothing
        to prune.

    Reference: Evci et al. 2019, https://arxiv.org/abs/1911.11134, sec. 3.
    """
    check_sparsity(sparsity)
    leaves = matching(params, prunable, "prune.prunable")
    found = dict.fromkeys(leaves, 0.0)
    pinned = {} if dense is None else matching(leaves, dense, "prune.dense")
    free = [name for name in leaves if name not in pinned]
    if not free:
        raise BadInput("prune.dense", f"{dense!r} leaves nothing of {prunable!r} to prune")
    size = {name: _size(leaves[name]) for name in free}
    # A scalar is a vector of one.
    raw = {name: (max(sum(leaves[name].shape), 1) / size[name]) ** power for name in free}
    budget = (1 - sparsity) * sum(size.values())
    while free:
        eps = budget / sum(raw[name] * size[name] for name in free)
        over = [name for name in free if eps * raw[name] > 1]
        if not over:
            return found | {name: 1 - eps * raw[name] for name in free}
        free = [name for name in free if name not in over]
        budget -= sum(size[name] for name in over)
    return found


def by_hand(params: PyTree, sparsities: Mapping[str, float]) -> dict[str, float]:
    """A sparsity for each pattern: the first that matches the whole name of a tensor has it.

    There is no default: what no pattern takes is not pruned. Put `.*/kernel` last for the rest.

    Args:
      params: tree of arrays or shapes.
      sparsities: `{pattern: sparsity in [0, 1)}`, in the order in which they are tried.

    Raises:
      BadInput: a sparsity is outside [0, 1), or a pattern takes no tensor, since it matches none or
        only those that an earlier one took.
    """
    found = {}
    for pattern, sparsity in sparsities.items():
        field = f"prune.sparsities[{pattern!r}]"
        check_sparsity(sparsity, field)
        matched = matching(params, pattern, field)
        if matched.keys() <= found.keys():
            raise BadInput(
                field,
                f"earlier patterns took all that it matches, such as {next(iter(matched))!r}",
                "put it before them",
            )
        found |= {name: sparsity for name in matched if name not in found}
    return {name: found[name] for name in tree.named_leaves(params) if name in found}


def _monotone(name: str, curve: Mapping[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Ascending sparsities and their loss increases, from (0, 0) and never falling."""
    for sparsity, increase in curve.items():
        check_sparsity(sparsity, f"prune.curves[{name!r}]")
        if not math.isfinite(increase):
            raise BadInput(
                f"prune.curves[{name!r}]",
                f"the increase at {sparsity} is {increase}",
                "leave the point out",
            )
    at = sorted({**curve, 0.0: 0.0})
    return np.array(at), np.maximum.accumulate([0.0, *(curve[s] for s in at[1:])])


def _reach(curve: tuple[np.ndarray, np.ndarray], increase: float, side: str) -> float:
    """Largest sparsity whose increase is at most (`right`) or below (`left`) the one given."""
    at, cost = curve
    upper = int(np.sum(cost <= increase) if side == "right" else np.sum(cost < increase))
    if upper in (0, len(at)):
        return at[max(upper - 1, 0)]
    part = (increase - cost[upper - 1]) / (cost[upper] - cost[upper - 1])
    return at[upper - 1] + part * (at[upper] - at[upper - 1])


def by_sensitivity(
    curves: Mapping[str, Mapping[float, float]], sizes: Mapping[str, int], sparsity: float
) -> dict[str, float]:
    """Prunes every tensor up to one common increase of the loss, such that the total is met.

    Each tensor is pruned alone, at a few sparsities, and the increase of the loss is measured.
    Between the measurements a curve is linear, it begins at (0, 0), and where it falls its running
    maximum is taken. The common increase is the least that reaches the total, and the total is met
    exactly: where curves are flat there, they all go the same part of the way along it. A tensor
    is never pruned further than it was measured.

    Args:
      curves: `{name: {sparsity: increase of the loss}}`; what is given at sparsity 0 is taken as 0.
      sizes: `{name: number of entries}`, the weights of the total.
      sparsity: fraction to prune of all entries together, in [0, 1).

    Raises:
      BadInput: a sparsity is outside [0, 1), an increase is not finite, the names differ, or the
        total is above what the curves reach.
    """
    check_sparsity(sparsity)
    if not curves or curves.keys() != sizes.keys():
        lost = min(curves.keys() ^ sizes.keys(), default=None)
        raise BadInput(
            "prune.curves", f"{lost!r} is not in both curves and sizes", "give both by name"
        )
    monotone = [_monotone(name, curve) for name, curve in curves.items()]
    weights = np.array([sizes[name] for name in curves], np.float64)
    weights /= weights.sum()
    # Piecewise linear in the increase: between two measured increases every tensor moves on a
    # line, and at one of them those with a flat piece move along it.
    knots = np.unique(np.concatenate([cost for _, cost in monotone]))
    path = np.array(
        [[_reach(c, knot, side) for c in monotone] for knot in knots for side in ("left", "right")]
    )
    total = path @ weights
    # All of it is within reach when the rounding of the sum alone is in the way.
    if sparsity > total[-1] + 1e-12:
        raise BadInput(
            "prune.sparsity",
            f"{sparsity} is above {total[-1]:.6g}, the most that the curves reach",
            "measure higher sparsities or ask for less",
        )
    upper = min(int(np.searchsorted(total, sparsity)), len(total) - 1)
    lower = max(upper - 1, 0)
    gap = total[upper] - total[lower]
    part = min((sparsity - total[lower]) / gap, 1.0) if gap else 1.0
    found = path[lower] + part * (path[upper] - path[lower])
    return {name: float(s) for name, s in zip(curves, found, strict=True)}


def meet(
    allocate: Callable[[float], T],
    cost: Callable[[T], float],
    budget: float | int,
    *,
    most: float = 0.999,
    tolerance: float = 1e-4,
) -> T:
    """The allocation that prunes least among those whose cost is within the budget.

    Bisection: `cost` is asked about `log2(1 / tolerance) + 2` times, and what is returned was
    itself found within the budget. If the cost rises anywhere, as a measured latency may, some
    allocation with less pruning may do as well.

    Args:
      allocate: `sparsity -> allocation`, such as `lambda s: uniform(params, s, prunable=...)`.
      cost: of an allocation; assumed not to rise with the sparsity. Parameters, multiplications,
        bytes or seconds: the unit is that of `budget`.
      budget: the most that it may cost.
      most: the largest sparsity that is tried, in [0, 1).
      tolerance: how far above the least sparsity the answer may be, in [1e-9, 1).

    Raises:
      BadInput: the cost is above the budget even at `most`; `most` or `tolerance` is out of range.
    """
    check_sparsity(most, "prune.most")
    if not 1e-9 <= tolerance < 1:
        raise BadInput("prune.tolerance", f"{tolerance} is not in [1e-9, 1)")
    found = allocate(0.0)
    if cost(found) <= budget:
        return found
    low, high = 0.0, most
    found = allocate(high)
    if not (least := cost(found)) <= budget:
        raise BadInput(
            "prune.budget",
            f"the cost is {least:g} even at sparsity {most:g}, above {budget:g}",
            "raise the budget or prune more tensors",
        )
    while high - low > tolerance:
        middle = (low + high) / 2
        tried = allocate(middle)
        if cost(tried) <= budget:
            high, found = middle, tried
        else:
            low = middle
    return found


def allocated(params: PyTree, sparsities: Mapping[str, float]) -> dict[str, PyTree]:
    """All parameters by name, for an allocation that fits them.

    Raises:
      BadInput: a name is not in the tree, or a sparsity is outside [0, 1).
    """
    leaves = tree.named_leaves(params)
    for name, sparsity in sparsities.items():
        check_sparsity(sparsity, f"prune.sparsities[{name!r}]")
        if name not in leaves:
            raise BadInput(
                f"prune.sparsities[{name!r}]",
                "no such parameter",
                f"the first of them is {next(iter(leaves), None)!r}",
            )
    return leaves


def counts(params: PyTree, sparsities: Mapping[str, float]) -> dict[str, int]:
    """How many entries of each tensor `topk_mask` prunes: its own rounding, `pruned_count`.

    Args:
      params: tree of arrays or shapes.
      sparsities: `{name: sparsity in [0, 1)}`, an allocation.

    Raises:
      BadInput: a name is not in the tree, or a sparsity is outside [0, 1).
    """
    leaves = allocated(params, sparsities)
    sizes = [_size(leaves[name]) for name in sparsities]
    asked = jnp.array([*sparsities.values()], jnp.float32)
    pruned = pruned_count(jnp.array(sizes, jnp.int32), asked)
    return dict(zip(sparsities, pruned.tolist(), strict=True))
