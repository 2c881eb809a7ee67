"""Arrays with indices taken away: variables, averages, gradients, the state of an optimizer."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import core

from kdjax import tree
from kdjax.shrink.narrow import Left
from kdjax.types import BadInput, PyTree


def cut(variables: PyTree, left: Left) -> PyTree:
    """`variables` with what is left of each axis; the names are those of `variables`."""
    return _cut(variables, _by_name(left))


def cut_following(following: PyTree, params: PyTree, left: Left) -> PyTree:
    """A tree in which some leaves belong to parameters, such as an optimizer's state, cut as they are.

    A leaf belongs to the parameter whose name its own name ends with, and has its shape: momenta,
    second moments, masks, averages. Scalars and counters stay.

    Args:
      following: any tree.
      params: the parameters before they are cut, without the name of a collection.
      left: with names that begin with `params/`.

    Raises:
      BadInput: a leaf is named after a parameter that is cut, and has another shape.
    """
    shapes = {name: np.shape(leaf) for name, leaf in tree.named_leaves(params).items()}
    cuts = {
        name.removeprefix("params/"): axes
        for name, axes in _by_name(left).items()
        if name.startswith("params/")
    }
    by_leaf = {}
    for name, leaf in tree.named_leaves(following).items():
        parts = name.split("/")
        owner = next((n for i in range(len(parts)) if (n := "/".join(parts[i:])) in shapes), None)
        if owner not in cuts or np.ndim(leaf) == 0:
            continue
        if np.shape(leaf) != shapes[owner]:
            raise BadInput(
                f"opt_state.{name}",
                f"{np.shape(leaf)} is not the shape of the parameter, {shapes[owner]}",
                "this optimizer's state cannot be carried over: begin it anew",
            )
        by_leaf[name] = cuts[owner]
    return _cut(following, by_leaf)


def _by_name(left: Left) -> dict[str, dict[int, np.ndarray]]:
    found: dict[str, dict[int, np.ndarray]] = {}
    for (name, axis), positions in left.items():
        found.setdefault(name, {})[axis] = positions
    return found


def _cut(whole: PyTree, cuts: dict[str, dict[int, np.ndarray]]) -> PyTree:
    names = iter(tree.named_leaves(whole))

    def one(leaf):
        axes = cuts.get(next(names), {})
        if isinstance(leaf, jax.ShapeDtypeStruct):
            shape = [len(axes[i]) if i in axes else n for i, n in enumerate(leaf.shape)]
            return jax.ShapeDtypeStruct(tuple(shape), leaf.dtype)
        if isinstance(leaf, core.Tracer):
            for axis, positions in axes.items():
                leaf = jnp.take(leaf, positions, axis=axis)
            return leaf
        # On the host: each shape would be compiled for by itself.
        found = np.asarray(leaf) if axes else leaf
        for axis, positions in axes.items():
            found = np.take(found, positions, axis=axis)
        return jax.device_put(found) if isinstance(leaf, jax.Array) else found

    return jax.tree.map(one, whole)
