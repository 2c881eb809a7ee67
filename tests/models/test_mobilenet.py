import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdjax import tree
from kdjax.evaluate import flops
from kdjax.models import (
    Classifier,
    Compute,
    efficientnet_b0,
    mobilenet_v2,
    mobilenet_v3_large,
    mobilenet_v3_small,
)
from kdjax.models.inverted_residual import InvertedResidual, Row, Squeeze, rounded

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)


def _shapes(model, side=32):
    return jax.eval_shape(lambda: model.init(KEY, jnp.zeros((1, side, side, 3)), train=False))


@pytest.mark.parametrize(
    ("network", "parameters", "macs"),
    [
        # torchvision, 1000 classes, 224 pixels.
        (mobilenet_v2, 3_504_872, 0.301e9),
        (mobilenet_v3_small, 2_542_856, 0.057e9),
        (mobilenet_v3_large, 5_483_032, 0.217e9),
    ],
    ids=["v2", "v3-small", "v3-large"],
)
def test_parameters_and_operations_are_those_published(network, parameters, macs):
    model = Classifier(network(imagenet_stem=True), 1000)
    variables = _shapes(model, 224)
    assert tree.size(variables["params"]) == parameters
    image = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    found = flops(lambda v, x: model.apply(v, x, train=False), variables, image) / 2
    assert found == pytest.approx(macs, abs=0.0005e9)
    # The stem for small images has the same parameters.
    assert tree.differences(_shapes(Classifier(network(), 1000)), variables) == []


@pytest.mark.parametrize("make", [mobilenet_v3_small, mobilenet_v3_large])
def test_relu_in_the_place_of_hard_swish(make):
    published, relu = make(), make(activation="relu")
    assert {row.activation for row in relu.rows} | {relu.activation} == {nn.relu}
    assert len({row.activation for row in published.rows}) == 2
    assert published.activation != nn.relu
    assert tree.differences(_shapes(relu), _shapes(published)) == []


def test_half_of_mobilenet_v2():
    # The 812,836 of the CIFAR distillation tables have other widths, see the docstring.
    model = Classifier(mobilenet_v2(multiplier=0.5), 100)
    assert tree.size(_shapes(model)["params"]) == 815_780


@given(st.floats(0.01, 1e5))
def test_rounded_is_a_near_multiple_of_8(width):
    found = rounded(width)
    assert found % 8 == 0
    assert found >= max(8, 0.9 * width)
    assert found <= max(8, width + 8)


@pytest.mark.parametrize(
    ("width", "expected"),
    [
        (1.0, 8),
        (8, 8),
        (11.9, 16),
        (12, 16),
        (18.0, 24),
        (27.9, 32),
        (33.6, 32),
        (83.9, 80),
        (84, 88),
    ],
)
def test_rounded_by_hand(width, expected):
    # 11.9, 18 and 27.9 would lose more than a tenth; from 80 up to 84 the nearest is kept.
    assert rounded(width) == expected


@pytest.mark.parametrize(
    ("network", "residuals"),
    [
        (mobilenet_v2, 10),
        (mobilenet_v3_small, 6),
        (mobilenet_v3_large, 10),
        (efficientnet_b0, 9),
    ],
)
def test_what_a_block_has_is_that_of_the_table_whatever_the_widths(network, residuals):
    rows = network().rows
    arriving = (network().stem_width, *(row.features for row in rows))
    # For the published widths it is what the widths would tell...
    told = [row.stride == 1 and row.features == a for row, a in zip(rows, arriving, strict=False)]
    assert [row.residual for row in rows] == told
    assert sum(told) == residuals
    assert [row.expanded is None for row in rows] == [True] + [False] * (len(rows) - 1)

    # ... and it stays where others would tell more, since they are equal.
    def structure(rows):
        return [
            (row.kernel_size, row.stride, row.residual, row.expanded is None, row.squeeze is None)
            for row in rows
        ]

    narrow = network(multiplier=0.05)
    arriving = (narrow.stem_width, *(row.features for row in narrow.rows))
    pairs = zip(narrow.rows, arriving, strict=False)
    assert sum(row.stride == 1 and row.features == a for row, a in pairs) > residuals
    assert structure(narrow.rows) == structure(rows)


def test_squeezes_are_a_quarter_of_the_expansion():
    squeezes = [row.squeeze and row.squeeze.width for row in mobilenet_v3_small().rows]
    assert squeezes == [8, None, None, 24, 64, 64, 32, 40, 72, 144, 144]


def _draw(path, leaf):
    positive = path[-1].key in ("scale", "var")
    value = RNG.uniform(0.5, 2, leaf.shape) if positive else RNG.normal(size=leaf.shape)
    return jnp.asarray(value, leaf.dtype)


@pytest.mark.parametrize("residual", [True, False])
def test_a_block_by_hand(residual):
    # One 1x1 image: a depthwise convolution is the middle of its kernel.
    row = Row(
        kernel_size=5,
        expanded=6,
        features=4,
        stride=1,
        activation=nn.relu6,
        residual=residual,
        squeeze=Squeeze(width=3, activation=nn.relu, gate=nn.hard_sigmoid),
    )
    block = InvertedResidual(row, Compute())
    x = jnp.asarray(RNG.normal(size=(5, 1, 1, 4)), jnp.float32)
    shapes = jax.eval_shape(lambda: block.init(KEY, x, train=False))
    variables = jax.tree_util.tree_map_with_path(_draw, shapes)
    flat = {n: np.asarray(v, np.float64) for n, v in tree.named_leaves(variables).items()}

    def norm(name, x):
        moments = [flat[f"batch_stats/{name}/norm/{m}"] for m in ("mean", "var")]
        scale, bias = (flat[f"params/{name}/norm/{p}"] for p in ("scale", "bias"))
        return (x - moments[0]) / np.sqrt(moments[1] + 1e-5) * scale + bias

    def relu6(x):
        return np.clip(x, 0, 6)

    def dense(name, x):
        return x @ flat[f"params/excite/{name}/kernel"] + flat[f"params/excite/{name}/bias"]

    given = np.asarray(x, np.float64)[:, 0, 0]
    y = relu6(norm("expand", given @ flat["params/expand/conv/kernel"][0, 0]))
    assert flat["params/depthwise/conv/kernel"].shape == (5, 5, 1, 6)
    y = relu6(norm("depthwise", y * flat["params/depthwise/conv/kernel"][2, 2, 0]))
    y = y * relu6(dense("expand", np.maximum(dense("reduce", y), 0)) + 3) / 6
    y = norm("project", y @ flat["params/project/conv/kernel"][0, 0])
    expected = y + given if residual else y
    found = jax.jit(lambda: block.apply(variables, x, train=False))()
    np.testing.assert_allclose(found[:, 0, 0], expected, rtol=1e-4, atol=1e-4)


def test_the_gates_see_the_mean_over_space():
    row = Row(
        kernel_size=1,
        expanded=None,
        features=2,
        stride=1,
        activation=nn.relu,
        residual=False,
        squeeze=Squeeze(width=2, activation=nn.relu, gate=nn.sigmoid),
    )
    block = InvertedResidual(row, Compute(folded=True))
    one, eye = {"kernel": jnp.ones((1, 1, 1, 2)), "bias": jnp.zeros(2)}, jnp.eye(2)
    dense = {"kernel": eye, "bias": jnp.zeros(2)}
    params = {
        "depthwise": {"conv": one},
        "excite": {"reduce": dense, "expand": dense},
        "project": {"conv": {"kernel": eye[None, None], "bias": jnp.zeros(2)}},
    }
    x = jnp.asarray(RNG.uniform(0, 3, size=(2, 3, 5, 2)), jnp.float32)
    found = block.apply({"params": params}, x, train=False)
    gate = 1 / (1 + np.exp(-np.asarray(x, np.float64).mean((1, 2), keepdims=True)))
    np.testing.assert_allclose(found, x * gate, rtol=1e-5)


def test_a_layer_made_narrower_needs_no_other_change():
    # Every width after it, depthwise convolutions and gates too, is that of what arrives.
    widths = {("stem",): 7, ("block1", "expand"): 5, ("block3", "expand"): 3, ("last",): 9}

    def narrower(call, args, kwargs, context):
        module = context.module
        if isinstance(module, nn.Conv) and module.path[:-1] in widths:
            object.__setattr__(module, "features", widths[module.path[:-1]])
        return call(*args, **kwargs)

    with nn.intercept_methods(narrower):
        # Block 0 of V3-Large adds its input, so its output is made narrower with the stem.
        widths["block0", "project"] = 7
        params = tree.named_leaves(_shapes(mobilenet_v3_large())["params"])
    assert params["block0/depthwise/conv/kernel"].shape == (3, 3, 1, 7)
    assert params["block0/depthwise/norm/scale"].shape == (7,)
    assert params["block1/expand/conv/kernel"].shape == (1, 1, 7, 5)
    assert params["block1/depthwise/conv/kernel"].shape == (3, 3, 1, 5)
    assert params["block1/project/conv/kernel"].shape == (1, 1, 5, 24)
    assert params["block3/excite/reduce/kernel"].shape == (3, 24)
    assert params["block3/excite/expand/kernel"].shape == (24, 3)
    assert params["hidden/kernel"].shape == (9, 1280)
