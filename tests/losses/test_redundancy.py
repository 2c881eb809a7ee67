import functools

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from scipy.linalg import hadamard

from kdjax.losses import barlow_twins, vicreg
from kdjax.types import BadInput
from tests.losses.cases.redundancy import CASES


@settings(deadline=None, max_examples=10)
@given(st.permutations(range(6)), st.permutations(range(4)), st.sampled_from(CASES))
def test_blind_to_the_order_of_rows_of_dimensions_and_of_views(order, dims, case):
    found, _ = case.run(case.arrays)
    za, zb = (x[np.array(order)][:, np.array(dims)] for x in case.arrays)
    np.testing.assert_allclose(case.run([za, zb])[0], found, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(case.run([zb, za])[0], found, rtol=1e-4, atol=1e-6)


def test_barlow_twins_is_blind_to_the_scale_and_place_of_a_dimension():
    za, zb = CASES[1].arrays
    found, _ = CASES[1].run([za, zb])
    scale, place = jnp.array([[2.0, 8.0, 3.0, 5.0]]), jnp.array([[1.0, -3.0, 0.0, 9.0]])
    moved, _ = CASES[1].run([za * scale + place, zb])
    np.testing.assert_allclose(moved, found, rtol=3e-3)  # but for the 1e-5


# Eight rows in which four dimensions are uncorrelated, have no mean and vary by one.
APART = jnp.asarray(hadamard(8)[:, 1:5], jnp.float32)


def test_nothing_is_lost_where_dimensions_are_apart_and_the_views_agree():
    loss = jax.jit(functools.partial(barlow_twins, off_diagonal_weight=1.0))
    np.testing.assert_allclose(loss(3 * APART, APART), 0, atol=1e-8)
    found, grad = jax.jit(jax.value_and_grad(vicreg))(3 * APART, 3 * APART)
    np.testing.assert_allclose(found, 0, atol=1e-6)
    np.testing.assert_allclose(grad, 0, atol=1e-5)
    # All dimensions the same: every entry of c is one.
    same = jnp.broadcast_to(APART[:, :1], APART.shape)
    np.testing.assert_allclose(loss(same, same), 4 * 3, rtol=1e-4)


def test_a_collapsed_batch_costs_the_whole_hinge():
    collapsed = jnp.broadcast_to(APART[:1], APART.shape)
    np.testing.assert_allclose(jax.jit(vicreg)(collapsed, collapsed), 25 * 0.99, rtol=1e-5)
    # Constant dimensions are uncorrelated, with themselves as well.
    loss = jax.jit(barlow_twins)(collapsed, collapsed, off_diagonal_weight=1.0)
    np.testing.assert_allclose(loss, 4, rtol=1e-5)


def test_one_row_is_refused_by_vicreg():
    with pytest.raises(BadInput, match=r"^batch: "):
        vicreg(APART[:1], APART[:1])
