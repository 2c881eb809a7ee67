import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.views import fixed, geometry


def test_uint8_pixels_sit_on_levels():
    byte = np.arange(256)
    image = jnp.asarray(byte / 255.0, jnp.float32)
    np.testing.assert_array_equal(fixed.levels(image), 16 * byte)
    np.testing.assert_allclose(fixed.pixels(fixed.levels(image)), image, rtol=2e-7)


def test_levels_clip():
    np.testing.assert_array_equal(fixed.levels(jnp.array([-0.5, 1.5])), [0.0, fixed.LEVELS])


def test_product_is_rounded_before_the_sum():
    a, b, c = np.random.default_rng(0).uniform(0.5, 2.0, (3, 4096)).astype(np.float32)
    fused = jax.jit(lambda a, b, c: fixed.product(a, b) - c)(a, b, c)
    # 22 bits of mantissa: the last of float32's 23 is rounded away, ties to even.
    bits = (a * b).view(np.uint32)
    rounded = ((bits + ((bits >> 1) & 1)) & ~np.uint32(1)).view(np.float32)
    np.testing.assert_array_equal(fused, rounded - c)


@pytest.mark.parametrize(("taps", "size"), [(1, 1), (5, 9), (9, 5), (48, 1)])
def test_every_sum_of_levels_is_exact_in_float32(taps, size):
    boxes = [(start, end - start) for start in range(taps) for end in range(start + 1, taps + 1)]
    start, length = np.array(boxes).T
    triangle = jax.jit(jax.vmap(functools.partial(geometry._triangle, taps=taps, size=size)))
    weights = np.asarray(triangle(start, length))
    assert (weights >= 0).all()
    assert (weights == np.round(weights)).all()
    assert (weights.sum(axis=1) * fixed.LEVELS < 2**24).all()
    np.testing.assert_allclose(weights.sum(axis=1), fixed.WEIGHT, atol=taps / 2)
    tap = np.arange(taps)
    outside = (tap < start[:, None]) | (tap >= (start + length)[:, None])
    assert (weights[outside] == 0).all()


def test_order_of_the_sum_does_not_matter():
    rng = np.random.default_rng(0)
    image = jnp.asarray(rng.integers(0, 4081, (37, 29, 3)), jnp.float32)
    rows = fixed.weights(jnp.asarray(rng.integers(0, 100, (37, 11))))
    columns = fixed.weights(jnp.asarray(rng.integers(0, 100, (29, 13))))
    expected = np.einsum("hwc,ht,wl->tlc", *(np.float64(x) for x in (image, rows, columns)))
    expected /= np.float64(rows.sum(0))[:, None, None] * np.float64(columns.sum(0))[:, None]
    mixed = rng.permutation(37), rng.permutation(29)
    result = fixed.separable(image, rows, columns)
    again = fixed.separable(image[mixed[0]][:, mixed[1]], rows[mixed[0]], columns[mixed[1]])
    np.testing.assert_array_equal(result, again)
    np.testing.assert_allclose(result, expected, atol=1.01)


def test_below_covers_the_range_and_stays_in_it():
    unit = jnp.array([0.0, 0.5, 1.0 - 2.0**-23], jnp.float32)
    for count in (1, 3, 7, 224, 500, 4097):
        assert fixed.below(unit, count).tolist() == [0, count // 2, count - 1]
