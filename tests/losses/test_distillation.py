import math

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

from kdjax.losses import kd_kl

RNG = np.random.default_rng(0)
STUDENT, TEACHER = jnp.asarray(RNG.normal(0, 3, (2, 6, 5)), jnp.float32)

_logits = hnp.arrays(np.float32, (6, 5), elements=st.floats(-50, 50, width=32))
_loss = jax.jit(kd_kl, static_argnames="temperature")
_grads = jax.jit(
    jax.grad(lambda *args, **kwargs: kd_kl(*args, **kwargs).sum(), argnums=(0, 1)),
    static_argnames="temperature",
)


def _softened(row, temperature):
    exp = [math.exp((value - row.max()) / temperature) for value in row]
    return [value / math.fsum(exp) for value in exp]


def _by_hand(student, teacher, temperature):
    """Float64: `T^2 sum_c p_c log(p_c / q_c)`, p of the teacher."""
    losses = []
    for s, t in zip(*(np.asarray(x, np.float64) for x in (student, teacher)), strict=True):
        q, p = _softened(s, temperature), _softened(t, temperature)
        kl = math.fsum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
        losses.append(temperature**2 * kl)
    return np.array(losses)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_golden(temperature):
    found = _loss(STUDENT, TEACHER, temperature=temperature)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, _by_hand(STUDENT, TEACHER, temperature), rtol=1e-4)


def test_the_direction_is_from_the_teacher():
    # The student misses the teacher's second mode: forward KL pays, the reverse would not.
    teacher = jnp.array([[10.0, 10.0]])
    student = jnp.array([[20.0, 0.0]])
    np.testing.assert_allclose(_loss(student, teacher), 10 - math.log(2), rtol=1e-4)
    np.testing.assert_allclose(_loss(teacher, student), math.log(2), rtol=1e-4)


def test_leading_axes_are_free():
    flat = _loss(STUDENT, TEACHER, temperature=2.0)
    np.testing.assert_allclose(_loss(STUDENT[1], TEACHER[1], temperature=2.0), flat[1], rtol=1e-5)
    cube = _loss(STUDENT.reshape(3, 2, 5), TEACHER.reshape(3, 2, 5), temperature=2.0)
    np.testing.assert_allclose(cube.ravel(), flat, rtol=1e-5)


@settings(deadline=None, max_examples=30)
@given(_logits, _logits, st.sampled_from([0.5, 1.0, 4.0]))
def test_is_never_negative(student, teacher, temperature):
    found = _loss(student, teacher, temperature=temperature)
    # Rounding is all that may push it below: float32 in 1/T-scaled logits, times T^2.
    assert (np.asarray(found) >= -1e-5 * max(1, temperature) ** 2).all()


@settings(deadline=None, max_examples=30)
@given(_logits, _logits, st.floats(-30, 30, width=32), st.floats(-30, 30, width=32))
def test_is_blind_to_a_shift_of_either(student, teacher, a, b):
    found = _loss(student, teacher, temperature=2.0)
    moved = _loss(student + np.float32(a), teacher + np.float32(b), temperature=2.0)
    np.testing.assert_allclose(found, moved, rtol=1e-3, atol=1e-3)


@settings(deadline=None, max_examples=20)
@given(_logits, st.sampled_from([0.5, 1.0, 4.0]))
def test_is_zero_and_flat_where_the_two_are_equal(logits, temperature):
    np.testing.assert_array_equal(_loss(logits, logits, temperature=temperature), 0)
    grad, _ = _grads(logits, logits, temperature=temperature)
    np.testing.assert_allclose(grad, 0, atol=1e-5)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_gradient_is_the_softened_difference_and_none_reaches_the_teacher(temperature):
    grad, teacher_grad = _grads(STUDENT, TEACHER, temperature=temperature)
    expected = [
        temperature * (np.array(_softened(s, temperature)) - _softened(t, temperature))
        for s, t in zip(*(np.asarray(x, np.float64) for x in (STUDENT, TEACHER)), strict=True)
    ]
    np.testing.assert_allclose(grad, expected, rtol=1e-4, atol=1e-5)
    assert (np.asarray(teacher_grad) == 0).all()


def test_at_high_temperature_it_matches_logits():
    # Hinton et al., eq. 4: with centred logits the gradient tends to (student - teacher) / classes.
    # So the factor T^2 is there, neither T nor T^4.
    centred = [x - x.mean(-1, keepdims=True) for x in (STUDENT / 3, TEACHER / 3)]
    grad, _ = _grads(*centred, temperature=300.0)
    np.testing.assert_allclose(grad, (centred[0] - centred[1]) / 5, rtol=0.02, atol=2e-3)


@pytest.mark.parametrize("temperature", [0.01, 1.0, 20.0])
def test_extreme_logits_stay_finite(temperature):
    extreme = jnp.array([[1e4, -1e4, 0.0], [-1e4, 1e4, 1e4]])
    for student, teacher in [(extreme, -extreme), (-extreme, extreme), (extreme, extreme)]:
        assert np.isfinite(_loss(student, teacher, temperature=temperature)).all()
        assert all(np.isfinite(g).all() for g in _grads(student, teacher, temperature=temperature))
    # One class against another: KL is the student's gap, 2e4 / T, and T^2 times that is T * 2e4.
    found = _loss(extreme[:1], -extreme[:1], temperature=temperature)
    np.testing.assert_allclose(found, temperature * 2e4, rtol=1e-5)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_low_precision_is_computed_in_float32(dtype):
    student, teacher = jnp.asarray(STUDENT, dtype), jnp.asarray(TEACHER, dtype)
    found = _loss(student, teacher, temperature=3.0)
    assert found.dtype == jnp.float32
    wide = _loss(student.astype(jnp.float32), teacher.astype(jnp.float32), temperature=3.0)
    np.testing.assert_array_equal(found, wide)
    # The student and the cached teacher need not have one dtype.
    mixed = _loss(student.astype(jnp.float32), teacher, temperature=3.0)
    np.testing.assert_array_equal(mixed, wide)


def test_second_call_does_not_retrace():
    traces = []

    @jax.jit
    def loss(student, teacher):
        traces.append(0)
        return kd_kl(student, teacher, temperature=4.0)

    loss(STUDENT, TEACHER)
    loss(TEACHER, STUDENT)
    assert len(traces) == 1


def test_a_sweep_maps_over_the_temperature():
    temperatures = (0.5, 1.0, 4.0)

    def total(student, temperature):
        losses = kd_kl(student, TEACHER, temperature=temperature)
        return losses.sum(), losses

    sweep = jax.jit(jax.vmap(jax.grad(total, has_aux=True), in_axes=(None, 0)))
    grads, losses = sweep(STUDENT, jnp.array(temperatures))
    for grad, found, temperature in zip(grads, losses, temperatures, strict=True):
        expected = _loss(STUDENT, TEACHER, temperature=temperature)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
        expected, _ = _grads(STUDENT, TEACHER, temperature=temperature)
        np.testing.assert_allclose(grad, expected, rtol=1e-5, atol=1e-6)
