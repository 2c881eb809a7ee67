"""Masks of whole units, found while training: what `shrink` can take away for good."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from kdjax.shrink.groups import Groups
from kdjax.shrink.scores import Scores, keep_best, keep_each, unit_masks
from kdjax.types import PyTree


def gradual_units(
    groups: Groups,
    sparsity: optax.Schedule,
    *,
    score: Callable[[Groups, PyTree], Scores],
    together: bool = False,
) -> Callable[..., PyTree]:
    """A rule for `kdjax.prune.hold`: more and more units are masked with all that goes with them.

    What is masked stays masked. Hold the parameters of `unit_parameters(groups)`.

    Args:
      groups: see `find_groups`.
      sparsity: `count -> share of the units that is masked`.
      score: `(groups, params) -> scores`.
      together: one ranking over all groups instead of one for each.
    """

    def rule(count, *, weights, grads, masks):
        scores, target = score(groups, weights), jnp.asarray(sparsity(count), jnp.float32)
        keep = (keep_best if together else keep_each)(groups, scores, target)
        found = unit_masks(groups, keep, weights)
        return jax.tree.map(jnp.logical_and, masks, found)

    return rule


def unit_parameters(groups: Groups) -> tuple[str, ...]:
    """Names of the parameters that units have a part in, without `params/`."""
    names = {
        member.name.removeprefix("params/")
        for group in groups
        for member in group.members
        if member.name.startswith("params/")
    }
    return tuple(sorted(names))
