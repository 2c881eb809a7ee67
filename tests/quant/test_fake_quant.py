import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

from kdjax.quant import (
    BITS,
    LEVELS,
    Rule,
    fake_activation,
    fake_weights,
    quantize_weights,
    scale_of,
)

RULES = [Rule(weights=weights) for weights in LEVELS] + [
    Rule(weights=weights, scale="mse") for weights in ("int8", "int4")
]
EACH = pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{rule.weights}-{rule.scale}")
# A scale for each output, all rounded by one range, and none: matrices, kernels, heads, vectors.
SHAPES = pytest.mark.parametrize(
    ("shape", "channels"),
    [((9, 4), (1,)), ((3, 3, 2, 5), (3,)), ((6, 2, 3), (1, 2)), ((4, 9), (0,)), ((8,), ())],
)


def _draw(shape, *, seed=0):
    """Weights with exact zeros and, where there are channels, one of nothing else."""
    random = np.random.default_rng(seed)
    w = random.normal(size=shape) * random.uniform(0.1, 3, size=shape[-1])
    w = np.where(random.uniform(size=shape) < 0.3, 0.0, w)
    return w.astype(np.float32)


def _columns(array, channels):
    """[entries, channels] in float64."""
    array = np.asarray(array, np.float64)
    rest = [axis for axis in range(array.ndim) if axis not in channels]
    count = int(np.prod([array.shape[axis] for axis in channels]))
    return array.transpose(*rest, *channels).reshape(-1, count)


def _uniform(column, scale, level):
    return np.clip(np.round(column / scale), -level, level)


def _golden(column, rule):
    """Integers and scale of one channel, in float64, as the papers say."""
    size = np.abs(column)
    if not size.any():
        return np.zeros_like(column), 1.0
    match rule.weights:
        case "ternary":
            kept = size > 0.7 * size[size > 0].mean()
            return np.sign(column) * kept, size[kept].mean()
        case "binary":
            return np.sign(column), size[size > 0].mean()
    level = {"int8": 127, "int4": 7}[rule.weights]
    scale = size.max() / level
    if rule.scale == "mse":
        scales = [scale * (1 - i / 40) for i in range(32)]
        errors = [((_uniform(column, s, level) * s - column) ** 2).sum() for s in scales]
        scale = scales[int(np.argmin(errors))]
    return _uniform(column, scale, level), scale


@EACH
@SHAPES
def test_weights_golden(rule, shape, channels):
    w = _draw(shape)
    if channels:
        w[tuple(0 if axis in channels else slice(None) for axis in range(w.ndim))] = 0.0
    found = quantize_weights(jnp.asarray(w), rule, channels=channels)
    expected_shape = tuple(n if axis in channels else 1 for axis, n in enumerate(shape))
    assert found.integers.shape == shape
    assert found.scale.shape == expected_shape
    integers, scales = _columns(found.integers, channels), _columns(found.scale, channels)
    for i, column in enumerate(_columns(w, channels).T):
        expected, scale = _golden(column, rule)
        np.testing.assert_allclose(scales[0, i], scale, rtol=1e-6)
        np.testing.assert_array_equal(integers[:, i], expected)
    np.testing.assert_array_equal(found.values, found.integers * found.scale)


@EACH
def test_integers_fit_into_their_bits_and_zeros_stay(rule):
    w = _draw((16, 8))
    w[:, 2] = 0.0
    found = quantize_weights(jnp.asarray(w), rule, channels=(1,))
    integers = np.asarray(found.integers)
    level = LEVELS[rule.weights]
    assert level < 2 ** (BITS[rule.weights] - 1)
    assert np.abs(integers).max() == level  # all of them are used
    np.testing.assert_array_equal(integers, np.round(integers))
    assert not integers[w == 0].any()
    # A bias is stored in multiples of the scale, also in a channel without weights.
    assert (np.asarray(found.scale) > 0).all()
    fake = np.asarray(fake_weights(jnp.asarray(w), rule, channels=(1,)))
    assert not fake[w == 0].any()
    if rule.weights in ("int8", "binary"):
        np.testing.assert_array_equal((fake == 0)[np.abs(w) > 0.1], False)


@settings(deadline=None, max_examples=30)
@given(
    st.integers(0, 2**16),
    st.sampled_from(["int8", "int4"]),
    st.floats(1e-20, 1e20, allow_subnormal=False),
)
def test_mse_is_never_worse_than_absmax(seed, weights, size):
    w = _draw((12, 6), seed=seed) * np.float32(size)

    def error(scale):
        rule = Rule(weights=weights, scale=scale)
        found = quantize_weights(jnp.asarray(w), rule, channels=(1,)).values
        return (((np.asarray(found, np.float64) - w) / size) ** 2).sum(0)

    absmax, mse = error("absmax"), error("mse")
    assert (mse <= absmax * (1 + 1e-5)).all()


def test_mse_cuts_outliers_off():
    w = jnp.asarray(np.append(np.linspace(-1, 1, 2000), 4.0)[:, None], jnp.float32)
    absmax, mse = (
        quantize_weights(w, Rule(weights="int4", scale=scale), channels=(1,)).scale.item()
        for scale in ("absmax", "mse")
    )
    assert absmax == pytest.approx(4 / 7)
    assert mse < 0.75 * absmax


@EACH
def test_scaling_the_weights_scales_the_scale(rule):
    w = jnp.asarray(_draw((16, 4)))
    one, four = (quantize_weights(x, rule, channels=(1,)) for x in (w, 4 * w))
    np.testing.assert_array_equal(one.integers, four.integers)
    used = np.asarray(w).any(0)
    np.testing.assert_array_equal(4 * np.asarray(one.scale)[:, used], four.scale[:, used])


@EACH
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_fake_weights_are_the_stored_ones_with_a_gradient_of_one(rule, dtype):
    w = jnp.asarray(_draw((16, 4)), dtype)
    cotangent = jnp.asarray(_draw((16, 4), seed=1), dtype)
    found, back = jax.vjp(lambda w: fake_weights(w, rule, channels=(1,)), w)
    stored = quantize_weights(w.astype(jnp.float32), rule, channels=(1,)).values
    assert found.dtype == dtype
    if dtype == jnp.float32:
        np.testing.assert_allclose(found, stored, rtol=3e-7)
    else:
        np.testing.assert_array_equal(found, stored.astype(dtype))
    np.testing.assert_array_equal(back(cotangent)[0], cotangent)


@EACH
def test_weights_of_many_students_at_once(rule):
    w = jnp.stack([jnp.asarray(_draw((16, 4), seed=seed)) for seed in range(3)])
    many = jax.vmap(lambda w: fake_weights(w, rule, channels=(1,)))(w)
    for one, found in zip(w, many, strict=True):
        np.testing.assert_allclose(fake_weights(one, rule, channels=(1,)), found, rtol=1e-6)


RANGES = [(-1.0, 3.0), (0.0, 6.0), (-2.5, 0.0), (0.5, 2.0), (-4.0, -1.0), (0.0, 0.0), (-1e-6, 1e4)]


@pytest.mark.parametrize("range", RANGES)
def test_a_scale_covers_the_range_and_has_zero(range):
    scale, zero = (float(x) for x in scale_of(np.asarray(range, np.float32)))
    low, high = min(range[0], 0.0), max(range[1], 0.0)
    assert scale > 0
    assert zero == round(zero)
    assert 0 <= zero <= 255
    if low < high:
        assert scale == pytest.approx((high - low) / 255)
        assert -zero * scale == pytest.approx(low, abs=0.51 * scale)
        assert (255 - zero) * scale == pytest.approx(high, abs=0.51 * scale)


@pytest.mark.parametrize("range", RANGES)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_activations_golden(range, dtype):
    limits = np.asarray(range, np.float32)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(7, 40)) * 3, dtype).at[0, :5].set(0.0)
    found = fake_activation(x, limits)
    assert found.dtype == dtype
    assert not np.asarray(found[0, :5], np.float32).any()  # padding, and what is pruned

    low, high = min(range[0], 0.0), max(range[1], 0.0)
    scale = (high - low) / 255 or 1.0
    zero = np.round(-low / scale)
    exact = np.asarray(x, np.float64)
    integers = np.clip(np.round(exact / scale) + zero, 0, 255)
    expected = (integers - zero) * scale
    close = np.abs(exact / scale - np.floor(exact / scale) - 0.5) < 1e-3  # may round either way
    tolerance = 2**-8 if dtype == jnp.bfloat16 else 1e-6
    np.testing.assert_allclose(
        np.asarray(found, np.float64)[~close], expected[~close], rtol=tolerance, atol=1e-6
    )
    again = fake_activation(found, limits)
    if dtype == jnp.float32:
        np.testing.assert_array_equal(again, found)
        assert len(np.unique(found)) <= 256


@pytest.mark.parametrize("range", [(-1.0, 3.0), (0.0, 6.0), (-2.5, 0.0)])
def test_the_gradient_passes_inside_of_the_range_alone(range):
    limits = jnp.asarray(range)
    scale, zero = scale_of(limits)
    low, high = float(-zero * scale), float((255 - zero) * scale)
    inside = np.linspace(low, high, 50)[1:-1]
    outside = np.array([low - 1e-3, high + 1e-3, low - 9, high + 9])
    slope = jax.vmap(jax.grad(lambda x: fake_activation(x[None], limits)[0]))
    np.testing.assert_array_equal(slope(jnp.asarray(inside, jnp.float32)), 1.0)
    np.testing.assert_array_equal(slope(jnp.asarray(outside, jnp.float32)), 0.0)


def test_no_gradient_goes_to_the_range_inside_of_it():
    x = jnp.linspace(-0.9, 2.9, 30)
    grad = jax.grad(lambda r: fake_activation(x, r).sum())(jnp.array([-1.0, 3.0]))
    np.testing.assert_array_equal(grad, 0.0)


def test_each_student_has_its_own_range():
    x = jnp.asarray(_draw((3, 8)))
    ranges = jnp.array([[-1.0, 1.0], [0.0, 2.0], [-3.0, 0.0]])
    many = jax.vmap(fake_activation)(x, ranges)
    for one, range, found in zip(x, ranges, many, strict=True):
        np.testing.assert_allclose(fake_activation(one, range), found, rtol=3e-7)
