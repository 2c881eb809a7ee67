import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import tree
from kdjax.evaluate.flops import flops
from kdjax.models import Classifier, resnet18
from kdjax.shrink import Model, find_groups, groups_of, keep_each, take_away
from kdjax.shrink.cost import params_left
from kdjax.shrink.groups import check_kept, kept_positions
from kdjax.types import BadInput
from tests.shrink import nets
from tests.shrink.parity import kept_at_random, masks_of, normal, shrunk_is_masked, variables_of

VECTORS, TOKENS, IMAGES = (3, 5), (3, 4, 5), (3, 4, 4, 3)

# What units there are: net, shape of the input, sizes of the groups.
GROUPS = [
    (nets.Residual, VECTORS, {"stem": 6, "inner": 5}),
    (nets.Depthwise, IMAGES, {"expand": 6, "project": 4}),
    (nets.Multiplied, IMAGES, {"expand": 5, "depthwise": 2}),
    (nets.Excited, IMAGES, {"stem": 6, "reduce": 4}),
    (nets.Concatenated, IMAGES, {"left": 4, "right": 5, "join": 4}),
    (nets.Flattened, IMAGES, {"conv": 5, "hidden": 7}),
    (nets.Grouped, IMAGES, {"first": 2, "first#2": 3, "grouped": 3}),
    (nets.Gated, VECTORS, {"both": 5}),
    (nets.Attention, TOKENS, {"attention/query": 4, "mlp_in": 6}),
    (nets.WideTokens, TOKENS, {"tokens": 5, "attention/query": 2, "attention/out": 7}),
    (nets.GroupNormed, IMAGES, {"conv": 3}),
    (nets.InstanceNormed, IMAGES, {"conv": 6}),
    (nets.LayerNormed, VECTORS, {"inner": 5}),
    (nets.Recurrent, TOKENS, {"stem": 5}),
    (nets.Embedded, VECTORS, {"words": 6}),
    (nets.Tied, VECTORS, {"words": 6, "inner": 4}),
    (nets.Twice, VECTORS, {"stem": 6}),
    (nets.TwiceApart, VECTORS, {"a": 6, "shared": 4}),
    (nets.TransposedTwice, VECTORS, {"stem": 5}),
    (nets.Looped, VECTORS, {"stem": 6, "cell/inner": 5}),
    (nets.Stacked, VECTORS, {"stem": 6, "cell/inner": 5}),
    (nets.FixedHeads, TOKENS, {"v": 2}),  # the width of a head
    (nets.FixedWidth, TOKENS, {"q": 4}),  # heads
    (nets.ByWidth, VECTORS, {"inner": 6}),
    (nets.MeanOverChannels, VECTORS, {"inner": 5}),
    (nets.Shuffled, IMAGES, {"first#2": 2, "grouped": 4}),
    (nets.ToSpace, IMAGES, {"conv": 2, "after": 4}),
    (nets.ArgMax, VECTORS, {"inner": 4}),
    (nets.Covariance, TOKENS, {"stem": 5}),
    (nets.Pooled, VECTORS, {"stem": 4}),
    (nets.Branching, VECTORS, {"a": 6}),
    (nets.While, VECTORS, {"inner": 4}),
    (nets.Outer, VECTORS, {"a": 3, "b": 4}),
    (nets.Transposed, IMAGES, {"first": 6, "larger": 5}),
    (nets.GeneralDense, VECTORS, {"two": 3, "two#2": 4}),
    (nets.Gates, VECTORS, {"stem": 6}),
    (nets.Half, VECTORS, {"stem": 6}),
    (nets.Remembered, VECTORS, {"stem": 6}),
    (nets.Positive, VECTORS, {"inner": 5}),
    (nets.Scaled, VECTORS, {"stem": 6}),
    (nets.JoinedKernels, VECTORS, {"stem": 6}),
    (nets.InAndOutOfLoop, VECTORS, {"stem": 6}),
    (nets.Rounded, VECTORS, {"stem": 6}),
    (nets.ClassToken, TOKENS, {"tokens": 6, "inner": 4}),
]

REDUCED = "reduced: a norm, a mean or a softmax over it"
SHOW = "in a product in which the zeros of a parameter do not show"
TOLD = "its layers cannot be told another width: "
# What must not be pruned, and why: net, shape of the input, parameter and axis, reason.
FROZEN = [
    (nets.Attention, TOKENS, "attention/query/kernel", 2, "summed over between two activations"),
    (nets.Attention, TOKENS, "attention/value/kernel", 2, TOLD),
    (nets.Attention, TOKENS, "tokens/kernel", 1, REDUCED),
    (nets.LayerNormed, VECTORS, "stem/kernel", 1, REDUCED),
    (nets.Recurrent, TOKENS, "OptimizedLSTMCell_0/hi/kernel", 1, TOLD),
    (nets.Embedded, VECTORS, "words/embedding", 0, "looked up by index"),
    (nets.Autoencoder, VECTORS, "kernel", 1, TOLD),
    (nets.FixedHeads, TOKENS, "q/kernel", 1, TOLD + "cannot reshape"),
    (nets.ByWidth, VECTORS, "stem/kernel", 1, TOLD + "add got incompatible shapes"),
    (nets.ScaledByWidth, VECTORS, "stem/kernel", 1, TOLD + "its 'div' has other numbers in it"),
    (nets.MeanOverChannels, VECTORS, "stem/kernel", 1, REDUCED),
    (nets.MaxOverChannels, VECTORS, "stem/kernel", 1, REDUCED),
    (nets.SoftmaxOverChannels, VECTORS, "stem/kernel", 1, REDUCED),
    (nets.Normalised, VECTORS, "stem/kernel", 1, REDUCED),
    (nets.FirstChannels, VECTORS, "stem/kernel", 1, "by 'slice'"),
    (nets.Reversed, VECTORS, "stem/kernel", 1, "by 'rev'"),
    (nets.ReversedAndKept, VECTORS, "stem/kernel", 1, "by 'rev'"),
    (nets.OneChannel, VECTORS, "stem/kernel", 1, "by 'slice'"),
    (nets.Rolled, VECTORS, "stem/kernel", 1, "by 'slice'"),
    (nets.Chunks, VECTORS, "stem/kernel", 1, "by 'slice'"),
    (nets.SplitBySlices, VECTORS, "both/kernel", 1, "by 'slice'"),
    (nets.PaddedChannels, VECTORS, "stem/kernel", 1, "by 'pad'"),
    (nets.Unequal, VECTORS, "stem/kernel", 1, "split at fixed places"),
    (nets.SplitApart, VECTORS, "stem/kernel", 1, "split at fixed places"),
    (nets.Repeated, VECTORS, "stem/kernel", 1, ""),
    (nets.Counted, VECTORS, "stem/kernel", 1, "counted, or compared with what is counted"),
    (nets.ArgMax, VECTORS, "stem/kernel", 1, REDUCED),
    (nets.Ones, VECTORS, "stem/kernel", 1, SHOW),
    (nets.Cumulated, VECTORS, "stem/kernel", 1, "by 'cumsum'"),
    (nets.Sorted, VECTORS, "stem/kernel", 1, "by 'sort'"),
    (nets.TopK, VECTORS, "stem/kernel", 1, "no rule for the operation 'top_k'"),
    (nets.While, VECTORS, "stem/kernel", 1, "no rule for the operation 'while'"),
    (nets.Gram, TOKENS, "stem/kernel", 1, "summed over between two activations"),
    (nets.Untouched, VECTORS, "stem/kernel", 1, TOLD + "six channels"),
    (nets.WeightNormed, VECTORS, "stem/kernel", 1, REDUCED),
    (nets.Standardised, VECTORS, "stem/kernel", 1, REDUCED),
    (nets.Positive, VECTORS, "stem/kernel", 1, SHOW),
    (nets.LogScaled, VECTORS, "stem/kernel", 1, SHOW),
    (nets.LowRank, VECTORS, "stem/kernel", 1, SHOW),
    (nets.Symmetric, VECTORS, "stem/kernel", 1, SHOW),
    # The narrowed model does something else: each way in which `Plan.fault` sees it.
    (nets.MoreByWidth, VECTORS, "stem/kernel", 1, "operations instead of"),
    (nets.OtherByWidth, VECTORS, "stem/kernel", 1, TOLD + "it has 'cos' where 'sin' was"),
    (nets.Shuffled, IMAGES, "grouped/kernel", 2, "gives [(3, 4, 4, 2, 2)] where"),
    (nets.Filled, VECTORS, "stem/kernel", 1, "is of something else"),
    (nets.Clipped, VECTORS, "stem/kernel", 1, "is of something else"),
    (nets.TableByWidth, VECTORS, "stem/kernel", 1, "is of something else"),
    (nets.SwappedByWidth, VECTORS, "stem/kernel", 1, "its 'sub' is of something else"),
    (nets.Chosen, VECTORS, "stem/kernel", 1, TOLD + "it gives something else"),
    (nets.WidthInLoop, VECTORS, "stem/kernel", 1, "its 'while' has other numbers in it"),
]


@functools.cache
def found_of(net, shape):
    """The model, its input, its variables and its groups, for all tests of a net."""
    model, x = Model(net()), normal(1, *shape)
    variables = variables_of(model.module, x)
    return model, x, variables, groups_of(model, variables, x)


def name_of(value):
    return value.__name__ if isinstance(value, type) else ""


@pytest.mark.parametrize(("net", "shape", "sizes"), GROUPS, ids=name_of)
def test_sizes_and_parity(net, shape, sizes):
    model, x, variables, groups = found_of(net, shape)
    assert groups.sizes == sizes
    seed = len(net.__name__)
    kept = kept_at_random(groups, seed)
    # The first and third group lose all that falls with a unit, the others only what makes it.
    made = list(sizes)[1::2]
    found = shrunk_is_masked(
        model, masks_of(groups, kept, variables["params"], made), variables, x, groups=groups
    )
    for name in sizes:
        if name in made:
            assert (found.kept[name] >= kept[name]).all()
        else:
            np.testing.assert_array_equal(found.kept[name], kept[name])


@pytest.mark.parametrize("net", [nets.Twice, nets.InAndOutOfLoop])
def test_constants_that_reach_several_readers(net):
    """All producers masked alone: a constant that one reader sees as zero, and another does not."""
    model, x, variables, groups = found_of(net, VECTORS)
    params = dict(variables["params"])
    params["stem"] = {**params["stem"], "bias": jnp.full(6, jnp.float32(-0.5))}
    variables = {"params": params}
    masks = masks_of(groups, kept_at_random(groups, 0), variables["params"], list(groups.sizes))
    shrunk_is_masked(model, masks, variables, x, groups=groups)


@pytest.mark.parametrize(
    ("net", "shape"), [(net, shape) for net, shape, _ in GROUPS[:10]], ids=name_of
)
def test_one_unit_left(net, shape):
    model, x, variables, groups = found_of(net, shape)
    shapes = jax.eval_shape(lambda: variables)
    kept = {group.name: np.arange(group.size) == group.size // 2 for group in groups}
    found = take_away(model, groups, kept, shapes, x)
    assert tree.size(found.variables["params"]) == params_left(groups, kept, shapes)


@pytest.mark.parametrize(("net", "shape", "name", "axis", "why"), FROZEN, ids=name_of)
def test_frozen(net, shape, name, axis, why):
    _, _, _, groups = found_of(net, shape)
    found = groups.frozen[f"params/{name}", axis]
    assert why in found
    assert "\n" not in found
    places = {(m.name, m.axis) for group in groups for m in group.members}
    assert (f"params/{name}", axis) not in places


def test_a_constant_of_the_model_freezes_what_it_is_written_for():
    _, _, _, groups = found_of(nets.Written, VECTORS)
    # The last value is added by itself: one unit alone, which has to stay.
    assert groups.sizes in ({}, {"stem": 1})


def found_in(net, shape):
    x = jax.ShapeDtypeStruct(shape, jnp.float32)
    shapes = jax.eval_shape(lambda: net().init(jax.random.key(0), jnp.zeros(shape)))
    return find_groups(Model(net()), shapes, x), shapes


def members_of(group):
    return {(m.name.removeprefix("params/"), m.axis): m for m in group.members}


def test_members_of_a_residual_stream():
    groups, _ = found_in(nets.Residual, VECTORS)
    stem = members_of(groups["stem"])
    assert {place: m.roles for place, m in stem.items()} == {
        ("stem/kernel", 1): ("out",),
        ("back/kernel", 1): ("out",),
        ("stem/bias", 0): (),
        ("back/bias", 0): (),
        ("inner/kernel", 0): ("in",),
        ("head/kernel", 0): ("in",),
    }
    assert [m.name for m in groups["stem"].members][:2] == [
        "params/stem/kernel",
        "params/back/kernel",
    ]
    for member in stem.values():
        np.testing.assert_array_equal(member.positions, np.arange(6)[:, None])


def test_positions_of_a_concatenation_with_itself():
    groups, _ = found_in(nets.Concatenated, IMAGES)
    left, right = (
        members_of(groups[name])["join/kernel", 2].positions for name in ("left", "right")
    )
    np.testing.assert_array_equal(left, [[i, 9 + i] for i in range(4)])
    np.testing.assert_array_equal(right, [[4 + i] for i in range(5)])
    scale = members_of(groups["left"])["norm/scale", 0].positions
    np.testing.assert_array_equal(scale, left)


def test_positions_of_a_flattening():
    groups, _ = found_in(nets.Flattened, IMAGES)
    positions = members_of(groups["conv"])["hidden/kernel", 0].positions
    np.testing.assert_array_equal(
        positions, [[5 * pixel + i for pixel in range(4)] for i in range(5)]
    )


def test_positions_of_a_split():
    groups, _ = found_in(nets.Gated, VECTORS)
    positions = members_of(groups["both"])["both/kernel", 1].positions
    np.testing.assert_array_equal(positions, [[i, 5 + i] for i in range(5)])


def test_units_of_a_grouped_convolution():
    groups, _ = found_in(nets.Grouped, IMAGES)
    by_group, inside = (
        members_of(groups[name])["first/kernel", 3].positions for name in ("first#2", "first")
    )
    np.testing.assert_array_equal(by_group, [[0, 1], [2, 3], [4, 5]])
    np.testing.assert_array_equal(inside, [[0, 2, 4], [1, 3, 5]])


def test_torch_prunings_resnet18():
    """12 groups, 701466 -> 176402 parameters and 35046656 -> 8872576 multiply-accumulates."""
    model = Model(Classifier(resnet18(width=16), 10), lambda o: o["logits"], {"train": False})
    x = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    shapes = jax.eval_shape(
        lambda: model.module.init(jax.random.key(0), jnp.zeros(x.shape), train=False)
    )
    groups = find_groups(model, shapes, x)
    assert len(groups) == 12
    streams = {name: size for name, size in groups.sizes.items() if "first" not in name}
    assert sorted(streams.values()) == [16, 32, 64, 128]
    scores = {group.name: np.arange(group.size, dtype=np.float32) for group in groups}
    kept = keep_each(groups, jax.tree.map(jnp.asarray, scores), 0.5)
    found = take_away(model, groups, kept, shapes, x)
    assert tree.size(shapes["params"]) == 701_466
    assert tree.size(found.variables["params"]) == 176_402
    smaller = Model(found.module, model.output, model.kwargs)
    assert flops(model, shapes, x) == 2 * 35_046_656
    assert flops(smaller, found.variables, x) == 2 * 8_872_576


def test_a_group_by_its_name():
    groups, _ = found_in(nets.Residual, VECTORS)
    assert groups["inner"].size == 5
    assert [group.name for group in groups] == ["stem", "inner"]
    with pytest.raises(BadInput, match=r"there is no group 'tail'; they are \['stem', 'inner'\]"):
        groups["tail"]


def test_without():
    groups, _ = found_in(nets.Residual, VECTORS)
    left = groups.without({"stem": "the config says so"})
    assert left.sizes == {"inner": 5}
    assert left.frozen["params/head/kernel", 0] == "the config says so"
    assert ("params/inner/kernel", 1) not in left.frozen
    both, _ = found_in(nets.Grouped, IMAGES)
    # An axis that another group still has a part in is not frozen.
    assert ("params/first/kernel", 3) not in both.without({"first": "no"}).frozen


def test_two_groups_on_one_axis_fall_together():
    groups, shapes = found_in(nets.Grouped, IMAGES)
    by_name = {name: leaf.shape for name, leaf in tree.named_leaves(shapes).items()}
    kept = {"first#2": np.array([True, False, True]), "first": np.array([False, True])}
    left = kept_positions(groups, kept, by_name)
    np.testing.assert_array_equal(left["params/first/kernel", 3], [1, 5])
    np.testing.assert_array_equal(left["params/grouped/kernel", 2], [1])
    whole = {"first": np.ones(2, bool)}
    assert kept_positions(groups, whole, by_name) == {}


@pytest.mark.parametrize(
    ("kept", "line"),
    [
        ({"tail": np.ones(6, bool)}, "there is no group 'tail'; the first is 'stem'"),
        ({"stem": np.ones(5, bool)}, "kept.stem: 5 values for 6 units"),
        ({"stem": np.zeros(6, bool)}, "kept.stem: nothing is left of 6 units"),
    ],
)
def test_kept_that_does_not_fit(kept, line):
    groups, _ = found_in(nets.Residual, VECTORS)
    with pytest.raises(BadInput, match=line) as error:
        check_kept(groups, kept)
    assert "\n" not in str(error.value)


def test_unused_parameters_and_outputs_are_no_groups():
    def function(variables, x):
        p = variables["params"]
        return x @ p["used"], x @ p["also"]

    params = {name: jnp.zeros([5, 3]) for name in ("used", "also", "spare")}
    groups = find_groups(function, {"params": params}, jnp.zeros([2, 5]))
    assert len(groups) == 0
    assert groups.frozen["params/used", 1] == "an output of the model"
    assert groups.frozen["params/used", 0] == "an input of the model"
