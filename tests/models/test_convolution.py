"""`convolve` is `lax.conv_general_dilated`: values and both gradients, for any shape, anywhere."""

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from kdjax import models, train
from kdjax.models import convolve

SHAPES = {
    # image, kernel, strides, padding, dilation of the kernel, groups
    "1x1": ((2, 6, 5, 4), (1, 1, 4, 3), (1, 1), "VALID", (1, 1), 1),
    "1x1 strided": ((2, 7, 6, 4), (1, 1, 4, 3), (2, 2), [(0, 0), (0, 0)], (1, 1), 1),
    "1x1 padded": ((2, 7, 6, 4), (1, 1, 4, 3), (2, 2), [(1, 1), (1, 1)], (1, 1), 1),
    "patches of a ViT": ((2, 8, 12, 3), (4, 4, 3, 5), (4, 4), "VALID", (1, 1), 1),
    "tiles that do not fit": ((2, 9, 12, 3), (4, 4, 3, 5), (4, 4), "VALID", (1, 1), 1),
    "3x3": ((2, 8, 6, 4), (3, 3, 4, 3), (1, 1), "SAME", (1, 1), 1),
    "3x3 of one channel": ((2, 8, 6, 1), (3, 3, 1, 4), (1, 1), "SAME", (1, 1), 1),
    "3x3 of three, dilated": ((2, 9, 9, 3), (3, 3, 3, 4), (1, 1), [(0, 3), (2, 2)], (2, 2), 1),
    "3x3 by two": ((2, 8, 6, 3), (3, 3, 3, 4), (2, 2), [(1, 1), (1, 1)], (1, 1), 1),
    "by two, odd": ((2, 9, 7, 3), (3, 3, 3, 4), (2, 2), "SAME", (1, 1), 1),
    "by three and one": ((2, 9, 7, 3), (3, 2, 3, 4), (3, 1), "SAME", (1, 1), 1),
    "stride above the kernel": ((2, 9, 9, 3), (2, 2, 3, 4), (3, 3), "VALID", (1, 1), 1),
    "7x7 by two": ((2, 12, 12, 3), (7, 7, 3, 4), (2, 2), [(3, 3), (3, 3)], (1, 1), 1),
    "even kernel": ((2, 8, 8, 3), (4, 4, 3, 4), (1, 1), "SAME", (1, 1), 1),
    "dilated": ((2, 9, 9, 4), (3, 3, 4, 3), (1, 1), "SAME", (2, 2), 1),
    "dilated by two": ((2, 9, 9, 3), (3, 3, 3, 4), (2, 2), "SAME", (2, 2), 1),
    "cropped": ((2, 9, 9, 3), (3, 3, 3, 4), (2, 1), [(-1, -1), (-2, 1)], (1, 1), 1),
    "padded far": ((2, 5, 5, 3), (3, 3, 3, 4), (1, 1), [(4, 5), (3, 3)], (1, 1), 1),
    "few pixels": ((2, 2, 2, 3), (3, 3, 3, 4), (1, 1), "SAME", (1, 1), 1),
    "few pixels by two": ((2, 2, 3, 3), (3, 3, 3, 4), (2, 2), [(1, 1), (1, 1)], (1, 1), 1),
    "one pixel": ((2, 1, 1, 3), (5, 5, 3, 4), (2, 2), [(2, 2), (2, 2)], (1, 1), 1),
    "a kernel above the image": ((2, 5, 6, 3), (6, 6, 3, 4), (1, 1), [(3, 2), (3, 2)], (1, 1), 1),
    "depthwise": ((2, 7, 8, 6), (3, 3, 1, 6), (1, 1), "SAME", (1, 1), 6),
    "depthwise by two": ((2, 7, 8, 6), (5, 5, 1, 6), (2, 2), [(2, 2), (2, 2)], (1, 1), 6),
    "depthwise, three each": ((2, 7, 8, 2), (3, 3, 1, 6), (2, 1), "SAME", (1, 2), 2),
    "depthwise, cropped": ((2, 7, 8, 4), (3, 3, 1, 4), (1, 1), [(-1, 0), (0, -2)], (1, 1), 4),
    "depthwise, few pixels": ((2, 2, 2, 4), (5, 5, 1, 4), (1, 1), "SAME", (1, 1), 4),
    "groups": ((2, 7, 8, 6), (3, 3, 3, 4), (2, 2), "SAME", (1, 1), 2),
    "1-D": ((2, 17, 3), (5, 3, 4), (2,), "SAME", (1,), 1),
    "1-D depthwise": ((2, 17, 3), (31, 1, 3), (1,), "SAME", (1,), 3),
    "1-D causal": ((2, 17, 3), (3, 3, 4), (1,), [(4, 0)], (2,), 1),
    "3-D": ((1, 5, 6, 5, 2), (3, 3, 2, 2, 3), (2, 1, 2), "SAME", (1, 1, 1), 1),
    "one row": ((1, 6, 6, 2), (3, 3, 2, 1), (1, 1), "SAME", (1, 1), 1),
}


def draw(*shapes, seed=0):
    random = np.random.default_rng(seed)
    return [jnp.asarray(random.normal(size=shape), jnp.float32) for shape in shapes]


def run(conv, strides, padding, dilation, groups):
    """`(image, kernel, weights) -> (value, gradients of the sum of weights * value)`."""

    def both(x, kernel):
        space = "DHW"[-(x.ndim - 2) :]
        return conv(
            x,
            kernel,
            strides,
            padding,
            rhs_dilation=dilation,
            dimension_numbers=(f"N{space}C", f"{space}IO", f"N{space}C"),
            feature_group_count=groups,
        )

    def values(x, kernel, weights):
        out, back = jax.vjp(both, x, kernel)
        return out, *back(weights[: math.prod(out.shape)].reshape(out.shape))

    return values


def agree(found, expected, *, tolerance=1e-5):
    for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert x.shape == y.shape
        scale = max(1.0, float(jnp.abs(y).max(initial=0.0)))
        np.testing.assert_allclose(x, y, rtol=0, atol=tolerance * scale)


@pytest.mark.parametrize("name", [name for name in SHAPES if "cropped" not in name])
def test_values_and_gradients_are_those_of_lax(name):
    image, kernel, *how = SHAPES[name]
    arrays = draw(image, kernel, (10_000,))
    agree(
        jax.jit(run(convolve, *how))(*arrays),
        jax.jit(run(lax.conv_general_dilated, *how))(*arrays),
    )


@st.composite
def shapes(draw):
    spatial = draw(st.integers(1, 2))
    each = functools.partial(st.lists, min_size=spatial, max_size=spatial)
    taps, stride = draw(each(st.integers(1, 4))), draw(each(st.integers(1, 3)))
    # Not negative: XLA:CPU has that wrong, see below.
    padding = st.tuples(st.integers(0, 4), st.integers(0, 4))
    step, pads = draw(each(st.integers(1, 2))), draw(each(padding))
    pixels = [
        max(1, draw(st.integers(1, 9)), (k - 1) * d + 1 - sum(pad))
        for k, d, pad in zip(taps, step, pads, strict=True)
    ]
    groups, per_group = draw(st.sampled_from([1, 1, 2, 3])), draw(st.integers(1, 3))
    features = groups * draw(st.integers(1, 2))
    image = (draw(st.integers(1, 3)), *pixels, groups * per_group)
    return image, (*taps, per_group, features), tuple(stride), pads, tuple(step), groups


@pytest.mark.thorough
@settings(max_examples=150, deadline=None)
@given(shapes())
def test_any_shape(shape):
    image, kernel, *how = shape
    arrays = draw(image, kernel, (10_000,))
    agree(
        jax.jit(run(convolve, *how))(*arrays),
        jax.jit(run(lax.conv_general_dilated, *how))(*arrays),
    )


@pytest.mark.parametrize("name", ["cropped", "depthwise, cropped"])
def test_a_negative_padding_crops(name):
    """Which XLA:CPU (jaxlib 0.10.2) has wrong where the other side's is positive."""
    image, kernel, strides, padding, dilation, groups = SHAPES[name]
    x, k, weights = draw(image, kernel, (10_000,))
    fast = jax.jit(run(convolve, strides, padding, dilation, groups))(x, k, weights)

    def cropped(conv):
        def of(x, k, strides, padding, **others):
            before = tuple(slice(max(-low, 0), n - max(-high, 0))
                           for n, (low, high) in zip(x.shape[1:-1], padding, strict=True))  # fmt: skip
            left = [(max(low, 0), max(high, 0)) for low, high in padding]
            return conv(x[(slice(None), *before)], k, strides, left, **others)

        return of

    plain = run(cropped(lax.conv_general_dilated), strides, padding, dilation, groups)
    agree(fast, jax.jit(plain)(x, k, weights))


def test_a_large_image_is_moved_exactly():
    x, kernel, weights = draw((8, 32, 32, 65), (3, 3, 65, 4), (8 * 32 * 32 * 4,))
    assert x.size > 2**19
    how = ((1, 1), "SAME", (1, 1), 1)
    agree(
        jax.jit(run(convolve, *how))(x, kernel, weights),
        jax.jit(run(lax.conv_general_dilated, *how))(x, kernel, weights),
    )


SAMPLES = ("3x3 by two", "few pixels", "depthwise by two", "1x1 strided", "1-D")


@pytest.mark.parametrize("name", SAMPLES)
def test_it_is_mapped_scanned_and_computed_again(name):
    """As sweeps, `accumulate`, `dispatch_steps` and rematerialisation have it."""
    image, kernel, *how = SHAPES[name]
    x, k, weights = draw((3, *image), (3, *kernel), (10_000,))
    fast, slow = run(convolve, *how), run(lax.conv_general_dilated, *how)

    def every(f):
        def scanned(carry, this):
            return carry, jax.checkpoint(f)(*this, weights)

        shared = jax.vmap(f, in_axes=(None, 0, None))
        return lambda x, k: (
            jax.vmap(f, in_axes=(0, 0, None))(x, k, weights),
            shared(x[0], k, weights),
            lax.scan(scanned, 0, (x, k))[1],
        )

    agree(jax.jit(every(fast))(x, k), jax.jit(every(slow))(x, k))


def test_of_eight_devices_each_has_its_rows():
    image, kernel, *how = SHAPES["by two, odd"]
    (x, k, weights) = draw((8, *image), kernel, (10_000,))

    def mean(f):
        def gradient(x, k):
            return lax.pmean(f(x, k, weights)[2], "data")

        return jax.pmap(gradient, axis_name="data", in_axes=(0, None))(x, k)[0]

    agree(mean(run(convolve, *how)), mean(run(lax.conv_general_dilated, *how)))


@pytest.mark.parametrize(
    ("changes", "dtype"),
    [
        ({"dimension_numbers": ("NCHW", "OIHW", "NCHW")}, jnp.float32),
        ({"lhs_dilation": (2, 2)}, jnp.float32),
        ({"batch_group_count": 2}, jnp.float32),
        ({"precision": "highest"}, jnp.float32),
        ({}, jnp.bfloat16),
        ({}, jnp.float16),
    ],
)
def test_what_has_no_faster_order_goes_to_xla_as_it_comes(changes, dtype):
    (x, kernel) = (array.astype(dtype) for array in draw((4, 6, 6, 6), (3, 3, 6, 6)))
    if "dimension_numbers" in changes:
        kernel = kernel.transpose(3, 2, 0, 1)
    call = {"dimension_numbers": ("NHWC", "HWIO", "NHWC"), **changes}
    padding = [(1, 1), (1, 1)]
    made = jax.make_jaxpr(lambda x, k: convolve(x, k, (1, 1), padding, **call))(x, kernel)
    expected = jax.make_jaxpr(lambda x, k: lax.conv_general_dilated(x, k, (1, 1), padding, **call))(
        x, kernel
    )
    assert str(made) == str(expected)


class Own(nn.Module):
    """Somebody's model: layers of linen, one with a convolution of its own."""

    @nn.compact
    def __call__(self, x, *, train: bool):
        x = nn.relu(nn.Conv(8, (3, 3), strides=2, use_bias=False, name="plain")(x))
        x = nn.Conv(8, (3, 3), feature_group_count=8, name="depthwise")(x)
        x = nn.Conv(8, (3, 3), padding="CIRCULAR", name="circular")(x)
        own = functools.partial(lax.conv_general_dilated)
        return nn.Conv(8, (1, 1), conv_general_dilated=own, name="own")(x).mean((1, 2))


@pytest.mark.parametrize(
    "model",
    [Own(), models.CNN(widths=(4, 8, 8)), models.vit(width=8, depth=1, heads=2, mlp=8, patch=4)],
    ids=["own", "cnn", "vit"],
)
def test_a_model_trains_as_it_would(model):
    (x,) = draw((4, 8, 8, 3))
    variables = jax.jit(lambda key: model.init(key, x, train=False))(jax.random.key(0))

    def gradients(params):
        def loss(params):
            out, _ = model.apply(
                {**variables, "params": params}, x, train=True, mutable=["batch_stats"]
            )
            return (jnp.sin(out) ** 2).sum()

        return jax.value_and_grad(loss)(params)

    fast = models.with_fast_convolutions(gradients)
    # BatchNorm over few pixels makes the last bits of an image larger ones.
    found, expected = jax.jit(fast)(variables["params"]), jax.jit(gradients)(variables["params"])
    agree(found, expected, tolerance=1e-4)
    assert "conv_general_dilated" in str(jax.make_jaxpr(gradients)(variables["params"]))
    # Which was one way of writing it, and not the other.
    assert str(jax.make_jaxpr(gradients)(variables["params"])) != str(
        jax.make_jaxpr(fast)(variables["params"])
    )


def test_only_what_is_compiled_for_a_cpu_has_it():
    """And only where it is not turned off; a model that is traced otherwise is as it is written."""
    model = nn.Conv(4, (3, 3), feature_group_count=4)
    (x,) = draw((8, 6, 6, 4))
    variables = model.init(jax.random.key(0), x)
    seen = []

    def step(tree, rows):
        out = jax.make_jaxpr(lambda x: model.apply(tree, x))(x)
        seen.append("conv_general_dilated" in str(out))
        return rows

    for convolutions in ("auto", "xla"):
        parallel = train.choose("single", convolutions=convolutions)
        parallel.spread(step, variables)(x)
    assert seen == [False, True]
    assert "conv_general_dilated" in str(jax.make_jaxpr(model.apply)(variables, x))
