import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.losses import adaptive_average_pool
from tests.losses import by_hand

RNG = np.random.default_rng(0)
_pool = jax.jit(adaptive_average_pool, static_argnums=1)


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
