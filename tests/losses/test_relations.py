"""What is particular to the losses that relate the examples of a batch to one another."""

import math

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

from kdjax import losses
from kdjax.types import BadInput
from tests.losses import by_hand

RNG = np.random.default_rng(0)
STUDENT, TEACHER = (jnp.asarray(RNG.normal(0, 1.5, (6, dim)), jnp.float32) for dim in (4, 7))
# What may be done to the student's rows, all together or each, without changing the loss.
BLIND_TO = {
    "rkd_distance": ("rotation", "scale", "shift"),
    "rkd_angle": ("rotation", "scale", "shift"),
    "similarity_preserving": ("rotation", "scale"),
    "correlation_congruence": ("rotation", "scale", "scales"),
    "pkt": ("rotation", "scale", "scales"),
}
LOSSES = {name: jax.jit(getattr(losses, name)) for name in BLIND_TO}
# Rows that differ from each other and from zero: there directions are well defined in float32.
_rows = st.permutations(range(24)).map(
    lambda values: (np.reshape(values, (6, 4)) - 11.5).astype(np.float32) / 8
)
by_name = pytest.mark.parametrize("name", BLIND_TO)


@by_name
@settings(deadline=None, max_examples=10)
@given(_rows, st.integers(0, 9), st.floats(2.0**-6, 2.0**6, width=32))
def test_what_a_relation_does_not_see(name, rows, seed, scale):
    rng = np.random.default_rng(seed)
    found = np.asarray(LOSSES[name](rows, TEACHER))
    assert (found >= -1e-6).all()
    for change in ("rotation", "scale", "shift", "scales"):
        match change:
            case "rotation":
                moved = rows @ np.linalg.qr(rng.normal(size=(4, 4)))[0]
            case "scale":
                moved = rows * scale
            case "shift":
                moved = rows + rng.normal(size=(1, 4))
            case "scales":
                moved = rows * rng.uniform(0.2, 5, (6, 1))
        moved = LOSSES[name](moved.astype(np.float32), TEACHER)
        if change in BLIND_TO[name]:
            np.testing.assert_allclose(moved, found, rtol=1e-4, atol=1e-6)
        else:
            assert np.abs(moved - found).max() > 1e-4


@by_name
def test_golden_of_zero_and_equal_rows(name):
    student, teacher = np.array(STUDENT), np.array(TEACHER)
    student[1] = teacher[2] = 0
    student[4], teacher[5] = student[3], teacher[0]
    expected = getattr(by_hand, name)(student, teacher)
    np.testing.assert_allclose(LOSSES[name](student, teacher), expected, rtol=2e-5)


@by_name
def test_an_example_alone_has_no_relations(name):
    loss = jax.jit(jax.value_and_grad(lambda *args: getattr(losses, name)(*args).sum()))
    found, grad = loss(STUDENT[:1], TEACHER[:1])
    np.testing.assert_allclose(found, 0, atol=1e-6)
    np.testing.assert_allclose(grad, 0, atol=1e-6)


def test_the_distances_of_the_published_code():
    # Three points on a line, their mean distance 4/3, against three that are equally far apart.
    student, teacher = jnp.array([[0.0], [1.0], [2.0]]), jnp.eye(3)
    near, far = (3 / 4 - 1) ** 2 / 2, (6 / 4 - 1) ** 2 / 2
    expected = [(near + far) / 3, 2 * near / 3, (near + far) / 3]
    np.testing.assert_allclose(LOSSES["rkd_distance"](student, teacher), expected, rtol=1e-6)


def test_the_angles_of_the_published_code():
    # On a line the cosines at the ends are 1, in the middle -1; in an equilateral triangle 1/2.
    student, teacher = jnp.array([[0.0], [1.0], [2.0]]), jnp.eye(3)
    end, middle = 2 * (1 / 2) ** 2 / 2, 2 * (3 / 2 - 1 / 2)
    expected = np.array([end, middle, end]) / 9
    np.testing.assert_allclose(LOSSES["rkd_angle"](student, teacher), expected, rtol=1e-5)


def test_congruence_tends_to_the_gaussian_kernel():
    def kernel(rows):
        rows = np.asarray(rows, np.float64)
        rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        gaps = ((rows[:, None] - rows[None]) ** 2).sum(-1)
        return np.exp(-0.7 * gaps)

    expected = ((kernel(STUDENT) - kernel(TEACHER)) ** 2).mean(-1)
    loss = jax.jit(losses.correlation_congruence, static_argnames="order")
    np.testing.assert_allclose(loss(STUDENT, TEACHER, gamma=0.7, order=9), expected, rtol=1e-4)
    for order in (1, 3):
        found = loss(STUDENT, TEACHER, gamma=0.7, order=order)
        by_terms = by_hand.correlation_congruence(STUDENT, TEACHER, gamma=0.7, order=order)
        np.testing.assert_allclose(found, by_terms, rtol=1e-4)
    with pytest.raises(BadInput, match=r"^order: 0"):
        loss(STUDENT, TEACHER, order=0)


def test_transfer_of_probabilities_knows_no_zero():
    # Opposite rows have an affinity of 0, equal ones of 1/2: log(p / q) without 1e-7 is infinite.
    student, teacher = jnp.array([[0.6, 0.8], [-0.6, -0.8]]), jnp.ones((2, 3))
    half = 0.5 + 1e-7
    expected = 0.5 * 0.5 * (math.log(half / (1 + 1e-7)) + math.log(half / 1e-7))
    found, grad = jax.jit(jax.value_and_grad(lambda x: losses.pkt(x, teacher).mean()))(student)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert np.isfinite(grad).all()


def test_transfer_of_probabilities_is_safe_from_rounding():
    # In float32 the cosine of opposite rows may be below -1 by more than 1e-7.
    for row in np.random.default_rng(0).normal(size=(40, 1, 512)).astype(np.float32):
        assert np.isfinite(LOSSES["pkt"](np.concatenate([row, -row]), TEACHER[:2])).all()


def test_distances_among_equal_rows_are_all_their_mean():
    # So in the published code: 1e-6 over 1e-6, and zero to the row itself.
    student = jnp.tile(STUDENT[:1], (6, 1))
    expected = by_hand.rkd_distance(student, TEACHER)
    np.testing.assert_allclose(LOSSES["rkd_distance"](student, TEACHER), expected, rtol=2e-5)
