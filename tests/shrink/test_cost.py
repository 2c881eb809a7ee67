import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import tree
from kdjax.evaluate.flops import flops
from kdjax.models import Classifier, cifar_resnet
from kdjax.prune.allocation import by_sensitivity, meet
from kdjax.shrink import Model, find_groups, group_l1, keep_each, take_away
from kdjax.shrink.cost import bytes_left, described, params_left, shapes_left
from kdjax.shrink.sensitivity import reach
from kdjax.types import BadInput

IMAGES = jax.ShapeDtypeStruct((1, 8, 8, 3), jnp.float32)


class Small(nn.Module):
    """A stem, a residual block around a depthwise convolution, a head; names as linen gives them."""

    @nn.compact
    def __call__(self, x, *, train: bool):
        def norm(x):
            return nn.BatchNorm(use_running_average=not train)(x)

        x = nn.relu(norm(nn.Conv(8, (3, 3), use_bias=False)(x)))
        y = nn.relu(norm(nn.Conv(16, (1, 1), use_bias=False)(x)))
        y = nn.relu(norm(nn.Conv(16, (3, 3), use_bias=False, feature_group_count=16)(y)))
        x = x + norm(nn.Conv(8, (1, 1), use_bias=False)(y))
        return nn.Dense(5)(x.mean((1, 2)))


@pytest.fixture(scope="module")
def small():
    model = Model(Small(), kwargs={"train": False})
    variables = model.module.init(jax.random.key(0), jnp.zeros(IMAGES.shape), train=False)
    return model, variables, find_groups(model, variables, IMAGES)


def kept_of(groups, share):
    return {g.name: np.arange(g.size) >= round(share * g.size) for g in groups}


def test_shapes_are_those_of_the_smaller_model(small):
    model, variables, groups = small
    kept = kept_of(groups, 0.4)
    shrunk = take_away(model, groups, kept, variables, IMAGES)
    expected = jax.eval_shape(lambda: shrunk.variables)
    for given in (variables, jax.eval_shape(lambda: variables)):
        found = shapes_left(groups, kept, given)
        assert tree.differences(found, expected) == []
        assert not any(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(found))
    in_jax = {name: jnp.array(keep) for name, keep in kept.items()}
    assert tree.differences(shapes_left(groups, in_jax, variables), expected) == []
    assert params_left(groups, kept, variables) == tree.size(shrunk.variables["params"])


def test_counts_golden(small):
    _, variables, groups = small
    assert groups.sizes == {"Conv_0": 8, "Conv_1": 16}

    def params(a, b):
        kernels = 9 * 3 * a + a * b + 9 * b + b * a
        return kernels + 2 * (a + b + b + a) + 5 * a + 5

    kept = {"Conv_0": np.arange(8) < 3, "Conv_1": np.arange(16) < 10}
    statistics = 2 * (3 + 10 + 10 + 3)
    assert params_left(groups, {}, variables) == params(8, 16)
    assert params_left(groups, kept, variables) == params(3, 10)
    assert bytes_left(groups, kept, variables) == 4 * (params(3, 10) + statistics)
    half = {**variables, "params": jax.tree.map(jnp.bfloat16, variables["params"])}
    assert bytes_left(groups, kept, half) == 2 * params(3, 10) + 4 * statistics


def test_a_whole_model_costs_what_it_is(small):
    _, variables, groups = small
    everything = kept_of(groups, 0.0)
    assert params_left(groups, everything, variables) == tree.size(variables["params"])
    assert tree.differences(shapes_left(groups, everything, variables), variables) == []


@pytest.mark.parametrize("kept", [{"Conv_9": [True]}, {"Conv_0": [True]}, {"Conv_0": [False] * 8}])
@pytest.mark.parametrize("function", [shapes_left, params_left, bytes_left])
def test_what_does_not_fit_is_refused(small, function, kept):
    _, variables, groups = small
    kept = {name: np.array(keep) for name, keep in kept.items()}
    with pytest.raises(BadInput, match=r"kept"):
        function(groups, kept, variables)
    with pytest.raises(BadInput, match=r"kept"):
        described(groups, kept)


@pytest.mark.parametrize("multiple", [1, 4])
def test_the_least_pruning_within_a_budget(small, multiple):
    _, variables, groups = small
    scores = group_l1(groups, variables["params"])

    def family(sparsity):
        return keep_each(groups, scores, sparsity, multiple=multiple)

    def cost(kept):
        return params_left(groups, kept, variables)

    budget = 0.5 * cost({})
    kept = meet(family, cost, budget, tolerance=0.01)
    assert cost(kept) <= budget
    counts = {name: int(keep.sum()) for name, keep in kept.items()}
    assert all(count % multiple == 0 for count in counts.values())
    assert counts == {1: {"Conv_0": 4, "Conv_1": 9}, 4: {"Conv_0": 4, "Conv_1": 8}}[multiple]
    more = {1: {"Conv_0": 5, "Conv_1": 9}, 4: {"Conv_0": 4, "Conv_1": 12}}[multiple]
    assert cost({n: np.arange(groups[n].size) < count for n, count in more.items()}) > budget


def test_a_budget_of_operations_by_sensitivity(small):
    model, variables, groups = small
    shapes = jax.eval_shape(lambda: variables)
    scores = group_l1(groups, variables["params"])
    curves = {"Conv_0": {0.5: 4.0}, "Conv_1": {0.25: 0.1, 0.75: 0.5}}

    def family(sparsity):
        allocated = by_sensitivity(curves, groups.sizes, sparsity)
        return keep_each(groups, scores, allocated)

    def cost(kept):
        shrunk = take_away(model, groups, kept, shapes, IMAGES)
        smaller = Model(shrunk.module, kwargs={"train": False})
        return flops(smaller, shrunk.variables, IMAGES)

    budget = 0.6 * cost({})
    kept = meet(family, cost, budget, most=reach(curves, groups.sizes), tolerance=0.02)
    assert cost(kept) <= budget
    assert int(kept["Conv_0"].sum()) >= 7  # the dear group is hardly touched
    assert int(kept["Conv_1"].sum()) <= 7


def test_described_golden(small):
    _, _, groups = small
    found = described(groups, {"Conv_1": np.arange(16) < 10})
    assert json.loads(json.dumps(found)) == found

    def members(*those):
        return [{"layer": layer, "role": role, "place": place} for layer, role, place in those]

    assert found == [
        {
            "name": "Conv_0",
            "size": 8,
            "kept": 8,
            "members": members(
                ("Conv_0", "out", 0),
                ("BatchNorm_0", "with", 1),
                ("Conv_1", "in", 2),
                ("Conv_3", "out", 6),
                ("BatchNorm_3", "with", 7),
                ("Dense_0", "in", 8),
            ),
        },
        {
            "name": "Conv_1",
            "size": 16,
            "kept": 10,
            "members": members(
                ("Conv_1", "out", 2),
                ("BatchNorm_1", "with", 3),
                ("Conv_2", "out", 4),
                ("BatchNorm_2", "with", 5),
                ("Conv_3", "in", 6),
            ),
        },
    ]


def test_a_norm_follows_its_convolution():
    model = Model(
        Classifier(cifar_resnet(8), 10),
        output=lambda outputs: outputs["logits"],
        kwargs={"train": False},
    )
    variables = jax.eval_shape(
        lambda: model.module.init(jax.random.key(0), jnp.zeros(IMAGES.shape), train=False)
    )
    found = described(find_groups(model, variables, IMAGES), {})
    layers = {m["place"]: m["layer"] for group in found for m in group["members"]}
    assert sorted(layers) == list(range(len(layers)))
    names = [layers[place].removeprefix("encoder/") for place in range(len(layers))]
    convolutions = ["stem"]
    for i in range(3):
        convolutions += [f"stage{i}_block0/{part}" for part in ("first", "second", "shortcut")]
    convolutions.remove("stage0_block0/shortcut")
    expected = [f"{name}/{layer}" for name in convolutions for layer in ("conv", "norm")]
    assert names == [*expected, "classifier"]
