import collections

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import tree

Pair = collections.namedtuple("Pair", ["first", "second"])  # as the states of optax


@flax.struct.dataclass
class State:
    params: dict
    step: int


TREE = {
    "encoder": {"stem": {"conv": {"kernel": jnp.ones((3, 2))}, "norm": {"scale": jnp.zeros(2)}}},
    "classifier": {"kernel": jnp.ones((2, 5)), "bias": jnp.zeros(5)},
}


def test_names_are_paths_in_the_order_of_the_tree():
    named = tree.named_leaves(TREE)
    assert list(named) == [
        "classifier/bias",
        "classifier/kernel",
        "encoder/stem/conv/kernel",
        "encoder/stem/norm/scale",
    ]
    for leaf, expected in zip(named.values(), jax.tree.leaves(TREE), strict=True):
        assert leaf is expected


def test_names_go_through_every_kind_of_node():
    nested = State(params={"a": [1, (2, 3)]}, step=Pair(first=4, second={"b": None, "c": 5}))
    assert tree.named_leaves(nested) == {
        "params/a/0": 1,
        "params/a/1/0": 2,
        "params/a/1/1": 3,
        "step/first": 4,
        "step/second/c": 5,
    }
    assert tree.named_leaves({}) == {}
    assert tree.named_leaves(7) == {"": 7}


@pytest.mark.parametrize(
    ("pattern", "matched"),
    [
        (".*/kernel", {"classifier/kernel", "encoder/stem/conv/kernel"}),
        ("kernel", set()),  # the whole name, not a part of it
        ("encoder/.*", {"encoder/stem/conv/kernel", "encoder/stem/norm/scale"}),
        (".*/(bias|scale)", {"classifier/bias", "encoder/stem/norm/scale"}),
        (".*", set(tree.named_leaves(TREE))),
        ("", set()),
        ("classifier/kernel|encoder", {"classifier/kernel"}),
    ],
)
def test_match_selects_by_the_whole_name(pattern, matched):
    found = tree.match(TREE, pattern)
    assert jax.tree.structure(found) == jax.tree.structure(TREE)
    assert {name for name, chosen in tree.named_leaves(found).items() if chosen} == matched
    assert {type(leaf) for leaf in jax.tree.leaves(found)} == {bool}


def test_match_works_on_shapes_alone():
    shapes = jax.eval_shape(lambda: TREE)
    assert tree.match(shapes, ".*/bias") == tree.match(TREE, ".*/bias")


def test_size_and_nonzero():
    assert tree.size(TREE) == 6 + 2 + 10 + 5
    assert tree.nonzero(TREE) == 6 + 10
    assert tree.size(jax.eval_shape(lambda: TREE)) == 23
    odd = {
        "signed": jnp.array([0.0, -0.0, -1.0]),
        "tiny": np.array([1e-45, 0], np.float32),
        "nan": jnp.array([jnp.nan]),
        "half": jnp.array([0, 1, 2], jnp.bfloat16),
        "bool": np.array([True, False]),
        "scalar": 3.0,
        "none": None,
        "empty": np.zeros((0, 4)),
    }
    assert tree.size(odd) == 3 + 2 + 1 + 3 + 2 + 1
    assert tree.nonzero(odd) == 1 + 1 + 1 + 2 + 1 + 1
    assert (tree.size({}), tree.nonzero({})) == (0, 0)


def test_differences_names_each_leaf_that_does_not_fit():
    assert tree.differences(TREE, jax.eval_shape(lambda: TREE)) == []
    found = {
        "classifier": {"kernel": jnp.ones((5, 2)), "bias": jnp.zeros(5, jnp.bfloat16)},
        "encoder": {"stem": {"conv": {"kernel": jnp.ones((3, 2)), "bias": jnp.zeros(2)}}},
    }
    assert tree.differences(found, TREE) == [
        "classifier/bias: found bfloat16[5], expected float32[5]",
        "classifier/kernel: found float32[5, 2], expected float32[2, 5]",
        "encoder/stem/conv/bias: not expected",
        "encoder/stem/norm/scale: missing",
    ]
