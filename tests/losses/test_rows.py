import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.losses.rows import centred, is_itself, root, row_count, row_mean, unit

RNG = np.random.default_rng(0)
_unit = jax.jit(unit, static_argnames="axis")


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


def test_centred_leaves_nothing_of_equal_entries():
    # Ten times 0.7 has a mean that rounds.
    x = jnp.asarray(RNG.normal(3, 2, (10, 4)), jnp.float32).at[:, 1].set(0.7)
    found = centred(x, axis=0)
    assert (np.asarray(found[:, 1]) == 0).all()
    expected = np.asarray(x, np.float64) - np.asarray(x, np.float64).mean(0)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_a_root_of_zero_sends_no_gradient():
    found, grad = jax.vmap(jax.value_and_grad(root))(jnp.array([0.0, 4.0]))
    np.testing.assert_array_equal(found, [0, 2])
    np.testing.assert_array_equal(grad, [0, 0.25])


def test_eight_devices_have_the_rows_of_one():
    x = jnp.asarray(RNG.normal(size=(16, 3)), jnp.float32)

    def both(x, axis_name):
        mean, itself = row_mean(x, axis_name), is_itself(x, axis_name)
        return centred(x, axis=0, axis_name=axis_name), mean, itself

    rows, mean, itself = jax.pmap(lambda x: both(x, "data"), axis_name="data")(x.reshape(8, 2, 3))
    expected, expected_mean, expected_itself = both(x, None)
    np.testing.assert_allclose(rows.reshape(16, 3), expected, atol=1e-6)
    np.testing.assert_allclose(mean, np.tile(expected_mean[None], (8, 1)), atol=1e-6)
    np.testing.assert_array_equal(itself.reshape(16, 16), expected_itself)
    np.testing.assert_array_equal(expected_itself, np.eye(16))
    assert row_count(x, None) == 16
