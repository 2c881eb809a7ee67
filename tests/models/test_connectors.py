import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from jax import lax

from kdjax import losses
from kdjax.models import (
    AttentionFusion,
    Compute,
    ConvNorm,
    Pointwise,
    VariationalRegressor,
    ofd_connector,
    pointwise_to,
    regressor,
    review,
)
from kdjax.types import BadInput

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)


def _draw(*shape):
    return jnp.asarray(RNG.normal(size=shape), jnp.float32)


def _shapes(tree):
    return jax.tree.map(lambda leaf: leaf.shape, tree)


def _run(module, *inputs, train=True, **kwargs):
    """`(variables, outputs)`, statistics those of the batch or the ones at the start."""

    def run(*inputs):
        variables = module.init(KEY, *inputs, train=False, **kwargs)
        call = functools.partial(module.apply, variables, *inputs, train=train, **kwargs)
        return variables, call(mutable=["batch_stats"])[0] if train else call()

    variables, outputs = jax.jit(run)(*inputs)
    return jax.tree.map(lambda x: np.asarray(x, np.float64), variables), outputs


def _normalised(x, *, relu):
    """What BatchNorm of scale 1 and bias 0 makes of a batch."""
    x = (x - x.mean((0, 1, 2))) / np.sqrt(x.var((0, 1, 2)) + 1e-5)
    return np.maximum(x, 0) if relu else x


def _convolved(x, kernel, stride, padding):
    """Float64, window by window."""
    x = np.pad(np.asarray(x, np.float64), ((0, 0), (padding,) * 2, (padding,) * 2, (0, 0)))
    height, width = kernel.shape[:2]
    rows = range(0, x.shape[1] - height + 1, stride)
    columns = range(0, x.shape[2] - width + 1, stride)
    windows = [[x[:, i : i + height, j : j + width] for j in columns] for i in rows]
    found = [[np.tensordot(w, kernel, 3) for w in row] for row in windows]
    return np.transpose(found, (2, 0, 1, 3))


@pytest.mark.parametrize("shape", [(3, 5), (3, 4, 2, 5)], ids=["vectors", "maps"])
def test_pointwise_layers_see_one_position_at_a_time(shape):
    module = pointwise_to((3, 8, 8, 7), hidden=(6,))
    x = _draw(*shape)
    variables, found = _run(module, x, train=False)
    layers = variables["params"]
    assert _shapes(layers) == {
        "dense0": {"kernel": (5, 6), "bias": (6,)},
        "dense1": {"kernel": (6, 7), "bias": (7,)},
    }
    hidden = np.maximum(np.asarray(x) @ layers["dense0"]["kernel"], 0)
    np.testing.assert_allclose(found, hidden @ layers["dense1"]["kernel"], rtol=1e-4, atol=1e-5)


def test_one_width_is_a_1x1_convolution():
    x = _draw(2, 4, 3, 5)
    variables, found = _run(pointwise_to((2, 4, 3, 7)), x)
    kernel = variables["params"]["dense0"]["kernel"][None, None]
    np.testing.assert_allclose(found, _convolved(x, kernel, 1, 0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("student", "teacher", "kernel", "stride", "padding"),
    [
        ((2, 6, 4, 3), (2, 6, 4, 5), (1, 1), 1, 0),
        ((2, 8, 6, 3), (2, 4, 3, 5), (3, 3), 2, 1),
        ((2, 6, 5, 3), (2, 4, 4, 5), (3, 2), 1, 0),
    ],
    ids=["same", "half", "valid"],
)
def test_regressor_of_a_map_that_is_not_smaller(student, teacher, kernel, stride, padding):
    x = _draw(*student)
    variables, found = _run(regressor(student, teacher), x)
    params = variables["params"]
    assert set(params["conv"]) == {"kernel"}
    assert params["conv"]["kernel"].shape == (*kernel, 3, 5)
    assert found.shape == teacher
    expected = _normalised(_convolved(x, params["conv"]["kernel"], stride, padding), relu=True)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


def test_regressor_of_a_map_of_half_the_size_adds_up_what_each_position_spreads():
    x = _draw(2, 3, 4, 3)
    variables, found = _run(regressor(x.shape, (2, 6, 8, 5)), x)
    kernel = variables["params"]["conv"]["kernel"]
    assert kernel.shape == (4, 4, 3, 5)
    # torch's definition: position (i, j) adds its stamp at (2i - 1, 2j - 1). Its kernel is ours
    # turned by half a turn.
    spread = np.zeros((2, 10, 12, 5))
    stamp = kernel[::-1, ::-1]
    for i in range(3):
        for j in range(4):
            spread[:, 2 * i : 2 * i + 4, 2 * j : 2 * j + 4] += np.einsum(
                "bc,hwcd->bhwd", np.asarray(x, np.float64)[:, i, j], stamp
            )
    expected = _normalised(spread[:, 1:7, 1:9], relu=True)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


def test_regressor_of_a_map_that_is_too_small_is_refused():
    with pytest.raises(
        BadInput, match=r"^student_shape: a map of 3 x 3 is neither half of the tea"
    ):
        regressor((2, 3, 3, 4), (2, 4, 4, 4))


def test_ofd_connector_is_a_1x1_convolution_and_its_norm():
    module = ofd_connector((2, 4, 4, 7))
    assert module == ConvNorm(7, kernel_size=1)
    x = _draw(2, 4, 4, 3)
    variables, found = _run(module, x)
    kernel = variables["params"]["conv"]["kernel"]
    expected = _normalised(np.asarray(x, np.float64) @ kernel[0, 0], relu=False)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


def test_variational_regressor():
    x = _draw(2, 3, 3, 4)
    variables, (mean, log_scale) = _run(VariationalRegressor(features=5, hidden=6), x)
    layers = variables["params"]["mean"]
    assert _shapes(layers) == {
        f"dense{i}": {"kernel": s} for i, s in enumerate([(4, 6), (6, 6), (6, 5)])
    }
    expected = np.asarray(x, np.float64)
    for i in range(3):
        expected = (np.maximum(expected, 0) if i else expected) @ layers[f"dense{i}"]["kernel"]
    np.testing.assert_allclose(mean, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(jax.nn.softplus(log_scale) + 1e-5, 5, rtol=1e-6)
    # With no error the loss is what is left of the scale.
    np.testing.assert_allclose(losses.vid(mean, mean, log_scale), math.log(5) / 2, rtol=1e-5)


def _upsampled(x, height, width):
    """As torch's nearest: element `i` of `to` is the one at `floor(i * side / to)`."""
    rows = [math.floor(i * x.shape[1] / height) for i in range(height)]
    columns = [math.floor(j * x.shape[2] / width) for j in range(width)]
    return np.asarray(x, np.float64)[:, rows][:, :, columns]


@pytest.mark.parametrize("size", [(5, 4), (7, 3)], ids=["same size", "other size"])
def test_attention_fusion_by_hand(size):
    level, deeper = _draw(2, 5, 4, 3), _draw(2, 2, 3, 6)
    module = AttentionFusion(width=6, features=7)
    variables, (output, fused) = _run(module, level, deeper, size=size)
    params = variables["params"]
    assert _shapes(params["gates"]) == {"kernel": (1, 1, 12, 2), "bias": (2,)}
    x = _normalised(
        np.asarray(level, np.float64) @ params["enter"]["conv"]["kernel"][0, 0], relu=False
    )
    y = _upsampled(deeper, 5, 4)
    gate = scipy.special.expit(np.concatenate([x, y], -1) @ params["gates"]["kernel"][0, 0])
    expected = _upsampled(x * gate[..., :1] + y * gate[..., 1:], *size)
    np.testing.assert_allclose(fused, expected, rtol=1e-3, atol=1e-4)
    leave = _convolved(expected, params["leave"]["conv"]["kernel"], 1, 1)
    np.testing.assert_allclose(output, _normalised(leave, relu=False), rtol=1e-3, atol=2e-4)


def test_the_deepest_level_is_fused_with_nothing():
    level = _draw(2, 2, 2, 3)
    variables, (output, fused) = _run(AttentionFusion(4, 5), level, None, size=(2, 2))
    assert set(variables["params"]) == {"enter", "leave"}
    assert (output.shape, fused.shape) == ((2, 2, 2, 5), (2, 2, 2, 4))


def test_review_gives_a_map_for_each_level_of_the_teacher():
    student = [(2, 8, 8, 4), (2, 4, 4, 6), (2, 1, 1, 6)]
    teacher = [(2, 16, 16, 3), (2, 5, 5, 7), (2, 1, 1, 9)]
    module = review(student, teacher)
    levels = [_draw(*shape) for shape in student]
    variables, outputs = _run(module, levels, train=False)
    assert [output.shape for output in outputs] == teacher
    assert module.width == 6
    assert sorted(variables["params"]) == ["level0", "level1", "level2"]
    assert "gates" not in variables["params"]["level2"]
    # Level by level, from the deepest, each on what the one below it has fused.
    fused = None
    for i in (2, 1, 0):
        part = {name: tree[f"level{i}"] for name, tree in variables.items()}
        module = AttentionFusion(6, teacher[i][-1])
        call = jax.jit(functools.partial(module.apply, size=teacher[i][1:3], train=False))
        output, fused = call(jax.tree.map(jnp.float32, part), levels[i], fused)
        np.testing.assert_allclose(outputs[i], output, rtol=1e-4, atol=1e-5)
    found = losses.review_hcl(outputs, [jnp.zeros(shape) for shape in teacher])
    assert found.shape == (2,)


@pytest.mark.parametrize(("students", "teachers"), [(0, 0), (2, 1)])
def test_levels_without_a_partner_are_refused(students, teachers):
    with pytest.raises(
        BadInput, match=f"^student_shapes: {students} for {teachers} of the teacher"
    ):
        review([(2, 4, 4, 3)] * students, [(2, 4, 4, 3)] * teachers)


def test_review_fuses_in_512_channels_at_most():
    assert review([(2, 1, 1, 1280)], [(2, 1, 1, 8)]).width == 512


BUILT = {
    "pointwise": lambda compute: (pointwise_to((2, 7), hidden=(4,), compute=compute), (16, 5)),
    "regressor": lambda compute: (
        regressor((2, 4, 4, 3), (2, 2, 2, 5), compute=compute),
        (16, 4, 4, 3),
    ),
    "transposed": lambda compute: (
        regressor((2, 4, 4, 3), (2, 8, 8, 5), compute=compute),
        (16, 4, 4, 3),
    ),
    "variational": lambda compute: (VariationalRegressor(5, 4, compute=compute), (16, 3, 3, 2)),
    "review": lambda compute: (
        review([(2, 4, 4, 3)], [(2, 4, 4, 5)], compute=compute),
        (16, 4, 4, 3),
    ),
}
built = pytest.mark.parametrize("build", BUILT.values(), ids=BUILT.keys())


@built
def test_activations_alone_are_in_low_precision(build):
    module, shape = build(Compute(dtype=jnp.bfloat16))

    def run(x):
        x = [x] if module.__class__.__name__ == "Review" else x
        return module.init_with_output(KEY, x, train=True)

    leaves = jax.tree.leaves(jax.eval_shape(run, jax.ShapeDtypeStruct(shape, jnp.bfloat16)))
    assert {leaf.dtype for leaf in leaves} == {jnp.dtype("float32")}


@pytest.mark.parametrize("name", ["regressor", "review"])
def test_statistics_are_those_of_eight_devices(name):
    one, shape = BUILT[name](Compute())
    many, _ = BUILT[name](Compute(axis_name="data"))
    x = _draw(*shape)
    wrap = (lambda x: [x]) if name == "review" else (lambda x: x)
    variables = jax.jit(lambda: one.init(KEY, wrap(x), train=False))()

    def train(model, x):
        outputs, _ = model.apply(variables, wrap(x), train=True, mutable=["batch_stats"])
        return outputs

    expected = jax.tree.leaves(jax.jit(lambda x: train(one, x))(x))[0]
    shards = x.reshape(8, 2, *shape[1:])
    (found,) = jax.tree.leaves(jax.pmap(lambda x: train(many, x), axis_name="data")(shards))
    np.testing.assert_allclose(lax.collapse(found, 0, 2), expected, rtol=1e-4, atol=1e-5)


def test_pointwise_without_bias_sends_zero_to_zero():
    variables, found = _run(Pointwise((4, 3), use_bias=False), jnp.zeros((2, 5)))
    assert _shapes(variables["params"]["dense1"]) == {"kernel": (4, 3)}
    assert (np.asarray(found) == 0).all()
