import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import tree
from kdjax.shrink import Model, Narrowed, groups_of, take_away
from kdjax.shrink.narrow import layers_of
from kdjax.types import BadInput
from tests.shrink import nets
from tests.shrink.parity import (
    difference,
    kept_at_random,
    masked_by,
    masks_of,
    normal,
    variables_of,
)

IMAGES, TOKENS, VECTORS = (2, 4, 4, 3), (2, 4, 5), (2, 5)


def shrunk(net, shape, seed=0):
    model, x = Model(net()), normal(1, *shape)
    variables = variables_of(model.module, x)
    groups = groups_of(model, variables, x)
    kept = kept_at_random(groups, seed)
    return model, x, variables, groups, kept, take_away(model, groups, kept, variables, x)


@pytest.mark.parametrize(
    ("net", "shape"),
    [
        (nets.Grouped, IMAGES),
        (nets.GroupNormed, IMAGES),
        (nets.WideTokens, TOKENS),
        (nets.GeneralDense, VECTORS),
        (nets.Tied, VECTORS),
        (nets.Looped, VECTORS),
    ],
)
def test_widths_are_plain_data(net, shape):
    """What a fresh process reads of JSON makes just the same model."""
    _, x, _, _, kept, found = shrunk(net, shape)
    assert not all(keep.all() for keep in kept.values())
    widths = json.loads(json.dumps(found.widths))
    again = Narrowed(net(), widths)
    made = jax.eval_shape(lambda: again.init(jax.random.key(0), x))
    assert tree.differences(made, found.variables) == []
    run = jax.jit(lambda v, x: (again.apply(v, x), found.module.apply(v, x)))
    np.testing.assert_array_equal(*run(found.variables, x))


def test_widths_golden():
    model, x = Model(nets.Grouped()), jnp.zeros(IMAGES)
    shapes = jax.eval_shape(lambda: model.module.init(jax.random.key(0), x))
    groups = groups_of(model, shapes, x)
    kept = {"first#2": np.array([True, False, True])}
    found = take_away(model, groups, kept, shapes, x)
    assert found.widths == {
        "first": {"features": 4},
        "grouped": {"features": 6, "feature_group_count": 2},
        "head": {"features": 3},
    }
    kept = {"grouped": np.array([True, False, True])}
    found = take_away(model, groups, kept, shapes, x)
    assert found.widths["grouped"] == {"features": 6, "feature_group_count": 3}


@pytest.mark.parametrize(
    ("net", "shape", "group", "path", "values"),
    [
        (nets.GroupNormed, IMAGES, "conv", "norm", {"num_groups": 2}),
        (
            *(nets.WideTokens, TOKENS, "attention/query", "attention"),
            {"num_heads": 1, "qkv_features": 4, "out_features": 7},
        ),
        (nets.GeneralDense, VECTORS, "two", "two", {"features": [2, 4]}),
        (nets.Embedded, VECTORS, "words", "words", {"num_embeddings": 7, "features": 5}),
        (nets.Multiplied, IMAGES, "expand", "depthwise", {"features": 8, "feature_group_count": 4}),
    ],
)
def test_each_kind_of_layer_is_told_its_width(net, shape, group, path, values):
    model, x = Model(net()), jnp.zeros(shape)
    shapes = jax.eval_shape(lambda: model.module.init(jax.random.key(0), x))
    groups = groups_of(model, shapes, x)
    kept = {group: np.arange(groups[group].size) > 0}
    assert take_away(model, groups, kept, shapes, x).widths[path] == values


class Layer(nn.Module):
    """Shows what its attributes are while it is called."""

    features: int

    @nn.compact
    def __call__(self, x):
        if x.shape[-1] == 99:
            raise ValueError("too wide")
        return x + self.features


class Outer(nn.Module):
    def setup(self):
        self.layer = Layer(3)

    def __call__(self, x):
        before = self.layer.features
        y = self.layer(x)
        return y, (before, self.layer.features)


def test_attributes_are_otherwise_for_the_call_alone():
    module = Narrowed(Outer(), {"layer": {"features": 7}})
    y, (before, after) = module.apply({}, jnp.zeros([2]))
    np.testing.assert_array_equal(y, [7.0, 7.0])
    assert (before, after) == (3, 3)
    assert module.wrapped == Outer()


class Forgiving(nn.Module):
    def setup(self):
        self.layer = Layer(3)

    def __call__(self, x):
        try:
            self.layer(jnp.zeros([99]))
        except ValueError:
            return jnp.float32(self.layer.features)


def test_attributes_come_back_after_an_exception():
    found = Narrowed(Forgiving(), {"layer": {"features": 7}}).apply({}, jnp.zeros([2]))
    assert float(found) == 3


class Student(nn.Module):
    """A model with another one in it, as a distillation has it."""

    inner: nn.Module

    @nn.compact
    def __call__(self, x):
        return nn.Dense(2, name="regressor")(self.inner(x))


def test_inside_of_another_module():
    _, x, _, _, _, found = shrunk(nets.Residual, VECTORS)
    student = Student(found.module)
    made = jax.jit(student.init)(jax.random.key(0), x)
    assert tree.differences(made["params"]["inner"], found.variables["params"]) == []
    params = {**made["params"], "inner": found.variables["params"]}
    regressor = params["regressor"]
    features = jax.jit(found.module.apply)(found.variables, x)
    got = jax.jit(student.apply)({"params": params}, x)
    np.testing.assert_allclose(got, features @ regressor["kernel"], rtol=1e-5)


def test_shrinking_twice_is_shrinking_once():
    model, x, variables, groups, kept, first = shrunk(nets.Concatenated, IMAGES)
    smaller = Model(first.module)
    left = groups_of(smaller, first.variables, x)
    counts = {name: int(keep.sum()) for name, keep in kept.items()}
    assert left.sizes == {name: count for name, count in counts.items() if count > 1}
    again = {name: np.arange(size) < max(1, size - 1) for name, size in left.sizes.items()}
    second = take_away(smaller, left, again, first.variables, x)
    assert isinstance(second.module, Narrowed)
    assert second.module.wrapped == model.module  # not a narrowed one of a narrowed one
    both = {}
    for name, keep in kept.items():
        both[name] = keep.copy()
        if name in again:
            both[name][np.flatnonzero(keep)[~again[name]]] = False
    at_once = take_away(model, groups, both, variables, x)
    assert second.widths == at_once.widths
    for a, b in zip(
        jax.tree.leaves(second.variables), jax.tree.leaves(at_once.variables), strict=True
    ):
        np.testing.assert_array_equal(a, b)
    masked = masked_by(masks_of(groups, both, variables["params"]), variables["params"])
    expected = model({**variables, "params": masked}, x)
    assert difference(second.module.apply(second.variables, x), expected) <= 1e-5


def test_other_methods_and_mutable_collections_go_through():
    model = Narrowed(
        nets.Depthwise(),
        {"expand": {"features": 3}, "depthwise": {"features": 3, "feature_group_count": 3}},
    )
    x = jnp.zeros(IMAGES)
    made = jax.eval_shape(lambda: model.init(jax.random.key(0), x))
    assert made["params"]["project"]["kernel"].shape == (1, 1, 3, 4)
    assert made["batch_stats"]["norm1"]["mean"].shape == (3,)


def test_layers_of():
    model, x = nets.Looped(), jnp.zeros(VECTORS)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), x))
    found = layers_of(model, shapes, x)
    assert set(found) == {"", "stem", "cell", "cell/inner", "cell/back", "head"}
    assert found["cell/inner"].features == 5


def test_a_width_that_the_code_cannot_have_is_refused_in_one_line():
    model, x = Model(nets.FixedHeads()), jnp.zeros(TOKENS)
    shapes = jax.eval_shape(lambda: model.module.init(jax.random.key(0), x))
    from kdjax.shrink import find_groups

    groups = find_groups(model, shapes, x)  # not yet asked whether the model can be run so
    assert "q" in groups.sizes
    with pytest.raises(BadInput, match="the model cannot be run at these widths") as error:
        take_away(model, groups, {"q": np.arange(4) > 0}, shapes, x)
    assert "\n" not in str(error.value)
