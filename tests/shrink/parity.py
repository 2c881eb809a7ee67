"""What the tests of shrinking share: variables away from their initial values, and the comparison."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kdjax import tree
from kdjax.shrink import Groups, Model, Shrunk, groups_of, shrink
from kdjax.shrink.cost import params_left


def drawn(shapes: Any, seed: int = 0) -> Any:
    """Variables of these shapes, well scaled, none at the value it begins with."""
    random = np.random.default_rng(seed)

    def one(name: str, leaf: Any):
        part = name.rsplit("/", 1)[-1]
        match part:
            case "bias" | "mean":
                value = random.normal(0.0, 0.3, leaf.shape)
            case "scale":
                value = random.uniform(0.5, 1.5, leaf.shape) * random.choice([-1, 1], leaf.shape)
            case "var":
                value = random.uniform(0.5, 2.0, leaf.shape)
            case _:
                fan_in = max(1, int(np.prod(leaf.shape[:-1])))
                value = random.normal(0.0, np.sqrt(2.0 / fan_in), leaf.shape)
        return jnp.asarray(value.astype(leaf.dtype))

    leaves = [one(name, leaf) for name, leaf in tree.named_leaves(shapes).items()]
    return jax.tree.unflatten(jax.tree.structure(shapes), leaves)


def variables_of(module: Any, *inputs: Any, seed: int = 0, **kwargs: Any) -> Any:
    """Drawn variables of a module; nothing is initialised."""
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), *inputs, **kwargs))
    return drawn(shapes, seed)


def normal(seed: int, *shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def kept_at_random(groups: Groups, seed: int, share: float = 0.5) -> dict[str, np.ndarray]:
    """Random units of each group, one of them at least."""
    random = np.random.default_rng(seed)
    kept = {}
    for group in groups:
        keep = random.random(group.size) >= share
        keep[random.integers(group.size)] = True
        kept[group.name] = keep
    return kept


def masks_of(groups: Groups, kept: Mapping[str, np.ndarray], params: Any, made=()) -> Any:
    """Masks of all that falls with a unit; of groups in `made` only of the kernels that make it."""
    axes: dict[str, dict[int, np.ndarray]] = {}
    shapes = {name: np.shape(leaf) for name, leaf in tree.named_leaves(params).items()}
    for group in groups:
        for member in group.members:
            name = member.name.removeprefix("params/")
            wanted = "out" in member.roles if group.name in made else True
            if name in shapes and group.name in kept and wanted:
                along = axes.setdefault(name, {}).setdefault(
                    member.axis, np.ones(shapes[name][member.axis], bool)
                )
                along[member.positions[~kept[group.name]]] = False

    def one(name):
        if name not in axes:
            return None
        mask = np.ones(shapes[name], bool)
        for axis, along in axes[name].items():
            mask &= along.reshape([-1 if i == axis else 1 for i in range(mask.ndim)])
        return mask

    return jax.tree.unflatten(jax.tree.structure(params), [one(name) for name in shapes])


def masked_by(masks: Any, params: Any) -> Any:
    """`apply_masks` of NumPy."""
    return jax.tree.map(
        lambda mask, leaf: leaf if mask is None else np.where(mask, leaf, np.float32(0)),
        masks,
        params,
        is_leaf=lambda node: node is None,
    )


def difference(found: Any, expected: Any) -> float:
    """The largest difference, relative to the largest value that is expected."""
    found, expected = (np.asarray(x, np.float64) for x in (found, expected))
    assert found.shape == expected.shape
    assert np.isfinite(expected).all()
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def shrunk_is_masked(
    model: Model, masks: Any, variables: Any, *inputs: Any, groups: Groups | None = None, **kwargs
) -> Shrunk:
    """Shrinks a masked model and holds it to what the masked one gives and to its size."""
    groups = groups_of(model, variables, *inputs) if groups is None else groups
    found = shrink(model, masks, variables, *inputs, groups=groups, **kwargs)
    masked = {**variables, "params": masked_by(masks, variables["params"])}
    smaller = Model(found.module, model.output, model.kwargs)
    # One compilation for both; neither has anything in common with the other.
    both = jax.jit(lambda masked, left, *inputs: (model(masked, *inputs), smaller(left, *inputs)))
    expected, got = both(masked, found.variables, *inputs)
    assert difference(got, expected) <= 1e-5
    assert tree.size(found.variables["params"]) == params_left(groups, found.kept, variables)
    return found
