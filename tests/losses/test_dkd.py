import math

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

from kdjax.losses import dkd, kd_kl
from tests.losses.by_hand import softmax
from tests.losses.laws import slopes

RNG = np.random.default_rng(0)
STUDENT, TEACHER = jnp.asarray(RNG.normal(0, 2, (2, 6, 5)), jnp.float32)
LABEL = jnp.array([0, 3, 4, 1, 1, 2])
WEIGHTS = {"alpha": 1.0, "beta": 8.0}

_logits = hnp.arrays(np.float32, (6, 5), elements=st.floats(-30, 30, width=32))
# Weights and temperature are traced: one compilation for all of them.
_loss = jax.jit(dkd)
_whole = jax.jit(kd_kl)
_grads = jax.jit(jax.grad(lambda *args, **kwargs: dkd(*args, **kwargs).sum(), argnums=(0, 1)))


def _kl(p, q):
    return math.fsum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def _by_hand(student, teacher, label, alpha, beta, temperature):
    """Float64: both divergences, from the probabilities themselves."""
    losses = []
    for s, t, y in zip(np.asarray(student, float), np.asarray(teacher, float), label, strict=True):
        if y < 0:
            losses.append(0.0)
            continue
        q, p = softmax(s, temperature), softmax(t, temperature)
        q_others, p_others = ([x for c, x in enumerate(r) if c != y] for r in (q, p))
        q_rest, p_rest = math.fsum(q_others), math.fsum(p_others)
        tckd = _kl([p[y], p_rest], [q[y], q_rest])
        nckd = _kl([x / p_rest for x in p_others], [x / q_rest for x in q_others])
        losses.append(temperature**2 * (alpha * tckd + beta * nckd))
    return np.array(losses)


@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 8.0), (1.0, 0.0), (0.0, 1.0)])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_golden(temperature, alpha, beta):
    numbers = {"alpha": alpha, "beta": beta, "temperature": temperature}
    found = _loss(STUDENT, TEACHER, LABEL, **numbers)
    assert found.dtype == jnp.float32
    expected = _by_hand(STUDENT, TEACHER, LABEL.tolist(), **numbers)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [1.0, 30.0, 90.0])
@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_golden_in_value_and_gradient_up_to_gaps_that_underflow(size, temperature):
    # Of each row some logits are at either end: a gap of 180, where float32 has exp(-180) = 0.
    ends = size * RNG.choice([-1.0, 0.5, 1.0], (2, 6, 5))
    numbers = {**WEIGHTS, "temperature": temperature}
    student, teacher = jnp.asarray(ends, jnp.float32)
    label = LABEL.tolist()
    found = _loss(student, teacher, LABEL, **numbers)
    expected = _by_hand(student, teacher, label, **numbers)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-4)
    grad, _ = _grads(student, teacher, LABEL, **numbers)
    expected = slopes(lambda s: _by_hand(s, teacher, label, **numbers), student, step=1e-4)
    np.testing.assert_allclose(grad, expected, rtol=1e-4, atol=1e-4)


def test_a_log_of_one_minus_a_probability_would_be_noticed():
    # The student is sure of the label, and the teacher is sure of the rest.
    student, teacher = jnp.array([[90.0, -90.0, -90.0]]), jnp.array([[-90.0, 90.0, 90.0]])
    numbers = {"alpha": 1.0, "beta": 1.0, "temperature": 1.0}
    found = _loss(student, teacher, jnp.array([0]), **numbers)
    np.testing.assert_allclose(found, [180 - math.log(2)], rtol=1e-6)
    grad, _ = _grads(student, teacher, jnp.array([0]), **numbers)
    np.testing.assert_allclose(grad, [[1, -0.5, -0.5]], rtol=1e-6)


def test_of_two_classes_there_is_nothing_within_the_rest():
    numbers = {"alpha": 0.0, "beta": 1.0, "temperature": 1.0}
    found = _loss(STUDENT[:, :2], TEACHER[:, :2], jnp.zeros(6, int), **numbers)
    np.testing.assert_array_equal(found, 0)


@settings(deadline=None, max_examples=20)
@given(_logits, _logits, st.sampled_from([1.0, 4.0]))
def test_kd_kl_is_the_first_plus_the_second_by_what_the_teacher_gives_the_rest(
    student, teacher, temperature
):
    both = {"temperature": temperature}
    tckd = _loss(student, teacher, LABEL, alpha=1.0, beta=0.0, **both)
    nckd = _loss(student, teacher, LABEL, alpha=0.0, beta=1.0, **both)
    rest = [
        math.fsum(p for c, p in enumerate(softmax(t, temperature)) if c != y)
        for t, y in zip(teacher.astype(float), LABEL.tolist(), strict=True)
    ]
    expected = np.asarray(_whole(student, teacher, temperature=temperature))
    close = {"rtol": 1e-4, "atol": 1e-4 * temperature}
    np.testing.assert_allclose(tckd + np.array(rest) * nckd, expected, **close)
    weighted = _loss(student, teacher, LABEL, alpha=2.0, beta=0.5, **both)
    np.testing.assert_allclose(weighted, 2 * tckd + 0.5 * nckd, **close)
    assert (np.asarray(tckd) >= -1e-4).all()
    assert (np.asarray(nckd) >= -1e-4).all()


def test_is_zero_and_flat_where_the_two_are_equal():
    moved = TEACHER + jnp.array([[1.0], [-2.0], [3.0], [0.0], [5.0], [-1.0]])
    found = _loss(moved, TEACHER, LABEL, **WEIGHTS, temperature=2.0)
    np.testing.assert_allclose(found, 0, atol=1e-5)
    grad, _ = _grads(moved, TEACHER, LABEL, **WEIGHTS, temperature=2.0)
    np.testing.assert_allclose(grad, 0, atol=1e-5)


def test_an_unlabelled_row_is_zero_and_sends_no_gradient():
    label = LABEL.at[1].set(-1).at[4].set(-7)
    found = _loss(STUDENT, TEACHER, label, **WEIGHTS, temperature=2.0)
    grad, _ = _grads(STUDENT, TEACHER, label, **WEIGHTS, temperature=2.0)
    is_labelled = np.asarray(label) >= 0
    np.testing.assert_array_equal(np.asarray(found) > 0, is_labelled)
    np.testing.assert_array_equal(np.abs(grad).max(-1) > 0, is_labelled)
    kept = _loss(STUDENT, TEACHER, LABEL, **WEIGHTS, temperature=2.0)
    np.testing.assert_array_equal(found[is_labelled], kept[is_labelled])


def test_leading_axes_are_free():
    numbers = {**WEIGHTS, "temperature": 2.0}
    flat = _loss(STUDENT, TEACHER, LABEL, **numbers)
    one = _loss(STUDENT[1], TEACHER[1], LABEL[1], **numbers)
    assert one.shape == ()
    np.testing.assert_allclose(one, flat[1], rtol=1e-5)
    cube = [x.reshape(3, 2, 5) for x in (STUDENT, TEACHER)]
    found = _loss(*cube, LABEL.reshape(3, 2), **numbers)
    np.testing.assert_allclose(found.ravel(), flat, rtol=1e-5)
