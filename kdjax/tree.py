"""Pytrees by the names of their leaves."""

import re

import jax
import jax.numpy as jnp
import numpy as np

from kdjax.types import PyTree


def _name(path) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def named_leaves(tree: PyTree) -> dict[str, PyTree]:
    """`{"encoder/stem/conv/kernel": leaf, ...}` in the tree's own order."""
    return {_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def match(tree: PyTree, pattern: str) -> PyTree:
    """Tree of bool: True where `pattern` matches the whole name of the leaf.

    This is the one selector by name: weight decay, masks and quantization rules use it.
    """
    compiled = re.compile(pattern)
    return jax.tree_util.tree_map_with_path(
        lambda path, _: compiled.fullmatch(_name(path)) is not None, tree
    )


def apply_masks(masks: PyTree, tree: PyTree) -> PyTree:
    """`tree` with exact zeros where a mask is False; leaves whose mask is None stay as they are."""
    return jax.tree.map(
        lambda mask, leaf: leaf if mask is None else jnp.where(mask, leaf, jnp.zeros_like(leaf)),
        masks,
        tree,
        is_leaf=lambda node: node is None,
    )


def size(tree: PyTree) -> int:
    """Number of scalars in the tree."""
    return sum(int(np.size(leaf)) for leaf in jax.tree.leaves(tree))


def nonzero(tree: PyTree) -> int:
    """Number of scalars in the tree that are not exactly zero."""
    return sum(int(np.count_nonzero(np.asarray(leaf))) for leaf in jax.tree.leaves(tree))


def differences(found: PyTree, expected: PyTree) -> list[str]:
    """One line for each leaf that is missing, not expected, or of another shape or dtype."""
    found, expected = named_leaves(found), named_leaves(expected)
    lines = [f"{name}: missing" for name in expected.keys() - found.keys()]
    lines += [f"{name}: not expected" for name in found.keys() - expected.keys()]
    for name in expected.keys() & found.keys():
        have, want = (f"{t[name].dtype}{list(t[name].shape)}" for t in (found, expected))
        if have != want:
            lines.append(f"{name}: found {have}, expected {want}")
    return sorted(lines)


def together(*batches: PyTree) -> PyTree:
    """One batch of several, one after the other."""
    return jax.tree.map(lambda *arrays: jnp.concatenate(arrays), *batches)


def rows(batch: PyTree) -> int:
    """How many examples a batch has."""
    return len(jax.tree.leaves(batch)[0])
