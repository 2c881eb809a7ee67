"""What is left of a model when units go, worked out from shapes alone: sizes, and plain data.

Together with a bisection this prunes to a budget. A family of what is kept, from all of it to
little, is `keep_each` at one sparsity for all groups, or at one that is allocated to each; its
cost is one of the functions below, or is asked of the model that `take_away` makes of shapes:

    meet(lambda s: keep_each(groups, scores, s), lambda kept: params_left(groups, kept, shapes), budget)
"""

import math
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from kdjax import tree
from kdjax.shrink.cut import cut
from kdjax.shrink.groups import Groups, check_kept, kept_positions, layer_of, shapes_of
from kdjax.types import Variables


def shapes_left(groups: Groups, kept: Mapping[str, Any], variables: Variables) -> Variables:
    """The shapes that `take_away` would give the variables; no array is touched.

    Args:
      groups: see `groups_of`.
      kept: bool [size] of the groups that lose units, NumPy or jax.
      variables: arrays or shapes.

    Raises:
      BadInput: `kept` names no group, has another size, or keeps nothing of one.
    """
    kept = {name: np.asarray(keep) for name, keep in kept.items()}
    check_kept(groups, kept)
    shapes = shapes_of(variables)
    by_name = {name: leaf.shape for name, leaf in tree.named_leaves(shapes).items()}
    return cut(shapes, kept_positions(groups, kept, by_name))


def params_left(groups: Groups, kept: Mapping[str, Any], variables: Variables) -> int:
    """Number of parameters that are left; statistics of norms do not count. See `shapes_left`."""
    return tree.size(shapes_left(groups, kept, variables)["params"])


def bytes_left(groups: Groups, kept: Mapping[str, Any], variables: Variables) -> int:
    """Bytes of all variables that are left, in their own dtypes. See `shapes_left`."""
    leaves = jax.tree.leaves(shapes_left(groups, kept, variables))
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in leaves)


def described(groups: Groups, kept: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The groups as plain data, for a manifest and for `kdjax.report`.

    Returns:
      In the order of the forward pass::

        [{"name": "encoder/stem/conv", "size": 16, "kept": 12,
          "members": [{"layer": "encoder/stem/conv", "role": "out", "place": 0}, ...]}, ...]

      One member for each layer and role: `out` makes the units, `in` reads them, and `with` has
      neither role, such as a norm. `place` is the layer's rank among all layers of all groups, in
      the order of the forward pass.

    Raises:
      BadInput: `kept` does not fit the groups.
    """
    kept = {name: np.asarray(keep) for name, keep in kept.items()}
    check_kept(groups, kept)
    every = {layer_of(m.name) for group in groups for m in group.members}
    forward = dict.fromkeys(layer for name in groups.order if (layer := layer_of(name)) in every)
    place = {layer: number for number, layer in enumerate(forward)}
    found = []
    for group in groups:
        roles = {(layer_of(m.name), role) for m in group.members for role in m.roles}
        alone = {layer_of(m.name) for m in group.members} - {layer for layer, _ in roles}
        roles |= {(layer, "with") for layer in alone}
        members = sorted(roles, key=lambda member: (place[member[0]], member[1]))
        found.append(
            {
                "name": group.name,
                "size": group.size,
                "kept": int(kept[group.name].sum()) if group.name in kept else group.size,
                "members": [
                    {"layer": layer, "role": role, "place": place[layer]} for layer, role in members
                ],
            }
        )
    return found
