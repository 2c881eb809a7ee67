import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.losses import adaptive_average_pool
from kdjax.losses.rows import unit
from tests.losses import by_hand

RNG = np.random.default_rng(0)
_pool = jax.jit(adaptive_average_pool, static_argnums=1)
_unit = jax.jit(unit, static_argnames="axis")


@pytest.fixture(autouse=True, scope="module")
def _quick(little_optimization):
    pass


@pytest.mark.parametrize(
    ("sides", "size"),
    [
        ((8, 4), (4, 2)),
        ((7, 5), (3, 2)),  # windows overlap
        ((5, 3), (4, 3)),
        ((5, 6), (1, 1)),
        ((3, 2), (7, 4)),  # and repeat
        ((3, 4), (3, 4)),
    ],
)
def test_pooling_is_golden(sides, size):
    maps = jnp.asarray(RNG.normal(size=(2, *sides, 3)), jnp.float32)
    found = _pool(maps, size)
    assert found.dtype == jnp.float32
    expected = [by_hand.pooled(np.asarray(one, np.float64), *size) for one in maps]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    # What the values do is linear: a slope of one element is its share of each window.
    grad = jax.jit(jax.grad(lambda x: (adaptive_average_pool(x, size) ** 2).sum() / 2))(maps)
    one = np.zeros(maps.shape)
    one[1, 2, 1, 0] = 1
    share = np.stack([by_hand.pooled(x, *size) for x in one])
    np.testing.assert_allclose(grad[1, 2, 1, 0], (share * expected).sum(), rtol=1e-4, atol=1e-6)


def test_a_constant_map_stays_constant():
    np.testing.assert_allclose(_pool(jnp.full((1, 7, 5, 2), 3.0), (3, 4)), 3, rtol=1e-6)


def test_pooling_in_low_precision_is_computed_in_float32():
    maps = jnp.asarray(RNG.normal(size=(2, 7, 7, 3)), jnp.bfloat16)
    for size in ((3, 3), (7, 7)):
        found = _pool(maps, size)
        assert found.dtype == jnp.float32
        np.testing.assert_array_equal(found, _pool(maps.astype(jnp.float32), size))


@pytest.mark.parametrize("axis", [-1, 0, 1])
def test_unit_vectors(axis):
    x = jnp.asarray(RNG.normal(size=(4, 3, 5)), jnp.float32)
    expected = x / np.linalg.norm(np.asarray(x, np.float64), axis=axis, keepdims=True)
    np.testing.assert_allclose(_unit(x, axis=axis), expected, rtol=1e-5)


def test_what_is_zero_has_no_direction_and_what_is_nearly_zero_little():
    x = jnp.array([[0.0, 0.0], [3e-13, 4e-13], [3e-6, 4e-6], [3e15, 4e15]])
    found = _unit(x)
    np.testing.assert_allclose(found, [[0, 0], [0.3, 0.4], [0.6, 0.8], [0.6, 0.8]], rtol=1e-5)
    grad = jax.jit(jax.grad(lambda x: unit(x).sum()))(x)
    assert np.isfinite(grad).all()
    assert (grad[0] == 0).all()
    # Below 1e-12 the divisor stands still.
    np.testing.assert_allclose(grad[1], 1e12, rtol=1e-5)
