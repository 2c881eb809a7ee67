import functools
import math

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from scipy.linalg import hadamard

from kdjax.losses import barlow_twins, vicreg
from kdjax.types import BadInput
from tests.losses import laws
from tests.losses.laws import Case


def _columns(z):
    """The dimensions of a batch, each less its mean, with its sum of squares."""
    for column in z.T:
        mean = math.fsum(column) / len(column)
        centred = [value - mean for value in column]
        yield centred, math.fsum(value * value for value in centred)


def _barlow_by_hand(arrays, _, weight):
    n = len(arrays[0])
    ya, yb = (
        [[v / math.sqrt(square / n + 1e-5) for v in column] for column, square in _columns(z)]
        for z in arrays
    )
    loss = 0.0
    for i, a in enumerate(ya):
        for j, b in enumerate(yb):
            c = math.fsum(x * y for x, y in zip(a, b, strict=True)) / n
            loss += (1 - c) ** 2 if i == j else weight * c**2
    return loss


def _vicreg_by_hand(arrays, _, invariance=25.0, variance=25.0, covariance=1.0):
    """As in the authors' code: halves before the two hinges, none before the covariances."""
    za, zb = arrays
    n, dim = za.shape
    distance = math.fsum((a - b) ** 2 for a, b in zip(za.ravel(), zb.ravel(), strict=True))
    loss = invariance * distance / (n * dim)
    for z in arrays:
        columns = list(_columns(z))
        for i, (a, square) in enumerate(columns):
            hinge = max(0.0, 1 - math.sqrt(square / (n - 1) + 1e-4))
            loss += variance * hinge / (2 * dim)
            for j, (b, _) in enumerate(columns):
                if i != j:
                    c = math.fsum(x * y for x, y in zip(a, b, strict=True)) / (n - 1)
                    loss += covariance * c**2 / dim
    return loss


def _pair(random, rows):
    # Half of the dimensions vary by less than one, where the hinge of VICReg pulls, and one of view a
    # by so little that the epsilons show.
    za = random.normal(0.5, [0.03, 2.0, 0.6, 1.5], (rows, 4))
    return [za, za + random.normal(0, 0.5, (rows, 4))]


def _case(name, loss, by_hand, **kwargs):
    return Case(name, functools.partial(loss, **kwargs), _pair, by_hand, (0, 1), (0, 0))


CASES = [
    *(
        _case(
            f"barlow {weight}",
            barlow_twins,
            functools.partial(_barlow_by_hand, weight=weight),
            off_diagonal_weight=weight,
        )
        for weight in (0.005, 1.0)
    ),
    *(
        _case(f"vicreg {weights}", vicreg, functools.partial(_vicreg_by_hand, **weights), **weights)
        for weights in (
            {},
            {"invariance": 1.0, "variance": 0.0, "covariance": 0.0},
            {"invariance": 0.0, "variance": 1.0, "covariance": 0.0},
            {"invariance": 0.0, "variance": 0.0, "covariance": 1.0},
        )
    ),
]
every = pytest.mark.parametrize(**laws.named(CASES))
whole = pytest.mark.parametrize(**laws.named([CASES[0], CASES[2]]))


@every
def test_golden(case):
    laws.check_value(case)


@every
def test_gradient(case):
    laws.check_gradient(case)


@every
def test_hard_rows_stay_finite(case):
    laws.check_finite(case)


@whole
def test_low_precision_is_computed_in_float32(case):
    laws.check_low_precision(case)


@whole
def test_second_call_does_not_retrace(case):
    laws.check_no_retrace(case)


@whole
def test_eight_devices_give_the_loss_and_the_gradient_of_one(case):
    laws.check_devices(case)


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
