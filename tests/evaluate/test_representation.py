import itertools
import math

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

from kdjax.evaluate import alignment, uniformity

ZA, ZB = jnp.asarray(np.random.default_rng(0).normal(size=(2, 9, 4)), jnp.float32)

_alignment = jax.jit(alignment, static_argnames="alpha")
_uniformity = jax.jit(uniformity, static_argnames="t")


def _units(rows):
    return [row / math.sqrt(math.fsum(v * v for v in row)) for row in np.asarray(rows, float)]


def _distance(a, b):
    return math.sqrt(math.fsum((x - y) ** 2 for x, y in zip(a, b, strict=True)))


@pytest.mark.parametrize("alpha", [1.0, 2.0, 3.0])
def test_alignment_golden(alpha):
    pairs = zip(_units(ZA), _units(ZB), strict=True)
    expected = math.fsum(_distance(a, b) ** alpha for a, b in pairs) / 9
    np.testing.assert_allclose(_alignment(ZA, ZB, alpha=alpha), expected, rtol=1e-5)


@pytest.mark.parametrize(("rows", "t"), [(9, 0.5), (9, 2.0), (300, 2.0)])
def test_uniformity_golden(rows, t):
    # 300 rows are looked at in two unequal parts.
    z = jnp.asarray(np.random.default_rng(1).normal(size=(rows, 4)), jnp.float32)
    pairs = list(itertools.combinations(_units(z), 2))
    total = math.fsum(math.exp(-t * _distance(a, b) ** 2) for a, b in pairs)
    found = _uniformity(z, t=t)
    np.testing.assert_allclose(found, math.log(total / len(pairs)), rtol=1e-5)


@settings(deadline=None, max_examples=10)
@given(st.permutations(range(9)), st.floats(2.0**-6, 2.0**6))
def test_blind_to_scale_and_order(order, scale):
    order = np.array(order)
    found = _alignment(ZA[order] * scale, ZB[order])
    np.testing.assert_allclose(found, _alignment(ZA, ZB), rtol=1e-5)
    np.testing.assert_allclose(_uniformity(ZA[order] * scale), _uniformity(ZA), rtol=1e-5)


def test_at_their_ends():
    np.testing.assert_allclose(_alignment(ZA, 2 * ZA), 0, atol=1e-6)
    np.testing.assert_allclose(_alignment(ZA, -ZA), 4, rtol=1e-5)
    np.testing.assert_allclose(_uniformity(jnp.tile(ZA[:1], (9, 1))), 0, atol=1e-5)
    np.testing.assert_allclose(_uniformity(jnp.stack([ZA[0], -ZA[0]])), -8, rtol=1e-5)
    np.testing.assert_allclose(_uniformity(jnp.eye(5)), -4, rtol=1e-5)


def test_a_sphere_is_more_uniform_than_a_cap():
    assert _uniformity(ZA) < _uniformity(ZA + 1) < _uniformity(ZA + 10)


def test_zero_rows_and_low_precision():
    assert np.isfinite(_uniformity(ZA.at[:3].set(0)))
    np.testing.assert_allclose(_alignment(jnp.zeros_like(ZA), ZB), 1, rtol=1e-5)
    low = ZA.astype(jnp.bfloat16)
    found = _uniformity(low)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, _uniformity(low.astype(jnp.float32)), rtol=1e-6)


def test_one_example_makes_no_pair():
    with pytest.raises(ValueError, match="1 examples make no pair"):
        uniformity(ZA[:1])
