import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import tree
from kdjax.models import Classifier, resnet18
from kdjax.shrink import Model, find_groups, groups_of, shrink, take_away
from kdjax.types import BadInput
from tests.shrink import nets
from tests.shrink.parity import (
    difference,
    kept_at_random,
    masked_by,
    masks_of,
    normal,
    shrunk_is_masked,
    variables_of,
)

VECTORS, IMAGES = (4, 5), (2, 5, 5, 3)


class Chain(nn.Module):
    """Two convolutions; what is added between them and how is left open."""

    padding: str = "SAME"
    bias: bool = True
    norm: bool = False
    later: bool = False

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(6, (1, 1), name="first")(x))
        x = nn.Conv(4, (3, 3), padding=self.padding, use_bias=self.bias, name="second")(x)
        if self.later:
            x = 2 * x
        if self.norm:
            x = nn.BatchNorm(use_running_average=True, name="norm")(x)
        return nn.Dense(3, name="head")(nn.relu(x).mean((1, 2)))


def all_dead_but_one(module):
    """Of `first` only unit 0 has weights; the biases of the others alternate in sign."""
    model, x = Model(module), normal(1, *IMAGES)
    variables = variables_of(module, x)
    bias = jnp.array([0.5, -0.5, 0.5, -0.5, 0.5, -0.5])
    variables["params"]["first"]["bias"] = bias
    groups = groups_of(model, variables, x)
    kept = {"first": np.arange(6) == 0, "second": np.ones(4, bool)}
    masks = masks_of(groups, kept, variables["params"], ["first"])
    return model, masks, variables, x, groups


@pytest.mark.parametrize(
    ("module", "left"),
    [
        # Into the bias, or into the mean: all but unit 0 go.
        (Chain("VALID"), [0]),
        (Chain("VALID", bias=False, norm=True), [0]),
        (Chain("VALID", bias=True, norm=True), [0]),
        # Behind padding a constant is none; what ReLU makes zero goes.
        (Chain("SAME"), [0, 2, 4]),
        (Chain("SAME", norm=True), [0, 2, 4]),
        # Nothing is added next to the product.
        (Chain("VALID", bias=False), [0, 2, 4]),
        (Chain("VALID", bias=False, norm=True, later=True), [0, 2, 4]),
    ],
)
def test_where_constants_go(module, left):
    model, masks, variables, x, groups = all_dead_but_one(module)
    found = shrunk_is_masked(model, masks, variables, x, groups=groups)
    np.testing.assert_array_equal(np.flatnonzero(found.kept["first"]), left)


def test_folding_golden():
    model, masks, variables, x, groups = all_dead_but_one(Chain("VALID"))
    found = shrink(model, masks, variables, x, groups=groups)
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), variables["params"])
    constant = np.maximum(p["first"]["bias"], 0)[1:]
    moved = np.einsum("i,hwio->o", constant, p["second"]["kernel"][:, :, 1:])
    np.testing.assert_allclose(
        found.variables["params"]["second"]["bias"], p["second"]["bias"] + moved, rtol=1e-5
    )
    model, masks, variables, x, groups = all_dead_but_one(Chain("VALID", bias=False, norm=True))
    found = shrink(model, masks, variables, x, groups=groups)
    mean = np.asarray(variables["batch_stats"]["norm"]["mean"], np.float64)
    kernel = np.asarray(variables["params"]["second"]["kernel"], np.float64)
    moved = np.einsum("i,hwio->o", constant, kernel[:, :, 1:])
    np.testing.assert_allclose(
        found.variables["batch_stats"]["norm"]["mean"], mean - moved, rtol=1e-5
    )


def test_readers_alone():
    """A unit that nothing reads goes, whatever makes it; one that something reads stays."""
    model, x = Model(nets.Residual()), normal(1, *VECTORS)
    variables = variables_of(model.module, x)
    masks = jax.tree.map(lambda leaf: np.ones(leaf.shape, bool), variables["params"])
    masks["head"]["kernel"][:3] = False
    masks["inner"]["kernel"][[0, 2, 5]] = False
    found = shrunk_is_masked(model, masks, variables, x)
    np.testing.assert_array_equal(found.kept["stem"], [False, True, False, True, True, True])


def test_one_maker_of_two_is_not_enough():
    model, x = Model(nets.Residual()), normal(1, *VECTORS)
    variables = variables_of(model.module, x)
    masks = jax.tree.map(lambda leaf: np.ones(leaf.shape, bool), variables["params"])
    masks["stem"]["kernel"][:, :3] = False
    masks["stem"]["bias"][:3] = False
    found = shrunk_is_masked(model, masks, variables, x)
    assert found.kept["stem"].all()


def test_single_weights_change_no_shape():
    """Unstructured masks are applied, and no unit is taken away that has a weight left."""
    model, x = Model(nets.Residual()), normal(1, *VECTORS)
    variables = variables_of(model.module, x)
    random = np.random.default_rng(0)
    masks = jax.tree.map(
        lambda leaf: random.random(leaf.shape) < 0.7 if leaf.ndim > 1 else None,
        variables["params"],
    )
    found = shrunk_is_masked(model, masks, variables, x)
    assert tree.differences(found.variables, variables) == []


def test_where_nothing_is_left_one_unit_stays():
    model, x = Model(nets.Residual()), normal(1, *VECTORS)
    variables = variables_of(model.module, x)
    masks = jax.tree.map(lambda leaf: np.zeros(leaf.shape, bool), variables["params"])
    masks["head"]["bias"] = None
    found = shrunk_is_masked(model, masks, variables, x)
    assert {name: keep.tolist() for name, keep in found.kept.items()} == {
        "stem": [True] + [False] * 5,
        "inner": [True] + [False] * 4,
    }


def test_a_unit_dead_on_the_example_but_alive_stays():
    """A ReLU that the example never opens: no mask says so, so nothing is taken away."""
    model, x = Model(Chain("VALID")), normal(1, *IMAGES)
    variables = variables_of(model.module, x)
    variables["params"]["first"]["bias"] = jnp.full(6, -1e3)
    masks = jax.tree.map(lambda leaf: np.ones(leaf.shape, bool), variables["params"])
    assert shrink(model, masks, variables, x).kept["first"].all()


def test_a_weak_type_is_no_difference():
    """`jnp.full` gives one, and an array that was cut has none any more."""
    model, x = Model(nets.Residual()), normal(1, *VECTORS)
    variables = variables_of(model.module, x)
    variables["params"]["stem"]["bias"] = jnp.full(6, 0.5)
    assert variables["params"]["stem"]["bias"].weak_type
    groups = groups_of(model, variables, x)
    assert groups.sizes == {"stem": 6, "inner": 5}
    masks = masks_of(groups, kept_at_random(groups, 0), variables["params"])
    shrunk_is_masked(model, masks, variables, x, groups=groups)


def test_the_masks_are_applied():
    """Weights that a mask takes and that are not zero yet do not come back."""
    model, x = Model(nets.Residual()), normal(1, *VECTORS)
    variables = variables_of(model.module, x)
    masks = jax.tree.map(lambda leaf: np.ones(leaf.shape, bool), variables["params"])
    masks["head"]["kernel"][:, 1] = False
    found = shrink(model, masks, variables, x)
    assert (found.variables["params"]["head"]["kernel"][:, 1] == 0).all()
    assert isinstance(found.variables["params"]["head"]["kernel"], jax.Array)


def test_variables_of_numpy():
    """As they come off a disk."""
    model, x = Model(nets.Residual()), normal(1, *VECTORS)
    variables = jax.device_get(variables_of(model.module, x))
    groups = groups_of(model, variables, x)
    masks = masks_of(groups, kept_at_random(groups, 0), variables["params"])
    shrunk_is_masked(model, masks, variables, x, groups=groups)


def test_the_batch_may_be_another():
    model, x = Model(nets.Excited()), normal(1, *IMAGES)
    variables = variables_of(model.module, x)
    groups = groups_of(model, variables, jax.ShapeDtypeStruct((7, 5, 5, 3), jnp.float32))
    kept = kept_at_random(groups, 0)
    masks = masks_of(groups, kept, variables["params"])
    images = jax.ShapeDtypeStruct((7, 5, 5, 3), jnp.float32)
    found = take_away(model, groups, kept, variables, images)
    masked = {"params": masked_by(masks, variables["params"])}
    assert difference(found.module.apply(found.variables, x), model(masked, x)) <= 1e-5


def test_an_output_that_is_asked_for_is_frozen():
    """With its features the last stage's channels are an output; without them they are a group."""
    module = Classifier(resnet18(width=2), 3)
    x = jax.ShapeDtypeStruct((1, 8, 8, 3), jnp.float32)
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), jnp.zeros(x.shape), train=False))
    logits = find_groups(Model(module, lambda o: o["logits"], {"train": False}), shapes, x)
    both = find_groups(Model(module, kwargs={"train": False}), shapes, x)
    (lost,) = set(logits.sizes) - set(both.sizes)
    assert logits.sizes[lost] == 16
    assert both.frozen["params/classifier/kernel", 0] == "an output of the model"


@pytest.mark.parametrize(
    ("kept", "line"),
    [
        ({"tail": [True] * 6}, "there is no group 'tail'"),
        ({"stem": [True] * 4}, "kept.stem: 4 values for 6 units"),
        ({"stem": [False] * 6}, "nothing is left of 6 units"),
    ],
)
def test_take_away_refuses(kept, line):
    model, x = Model(nets.Residual()), jnp.zeros(VECTORS)
    shapes = jax.eval_shape(lambda: model.module.init(jax.random.key(0), x))
    groups = groups_of(model, shapes, x)
    with pytest.raises(BadInput, match=line) as error:
        take_away(model, groups, {n: np.array(k) for n, k in kept.items()}, shapes, x)
    assert "\n" not in str(error.value)


def test_groups_of_another_batch_are_what_the_line_says():
    model = Model(nets.Residual())
    x, more = normal(0, 2, 4), normal(0, 5, 4)
    variables = variables_of(model.module, x)
    groups = groups_of(model, variables, x)
    kept = kept_at_random(groups, 0)
    line = r"^groups: they were found on inputs of \[2, 4\], and the inputs here are of \[5, 4\]"
    with pytest.raises(BadInput, match=line):
        take_away(model, groups, kept, variables, more)
    with pytest.raises(BadInput, match=line):
        shrink(model, masks_of(groups, kept, variables["params"]), variables, more, groups=groups)
