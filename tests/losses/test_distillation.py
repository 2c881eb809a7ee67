import math

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

from kdjax.losses import cross_entropy, kd_ce, kd_kl, kd_mse, standardize
from tests.losses.by_hand import softmax
from tests.losses.laws import slopes

RNG = np.random.default_rng(0)
STUDENT, TEACHER = jnp.asarray(RNG.normal(0, 3, (2, 6, 5)), jnp.float32)

_logits = hnp.arrays(np.float32, (6, 5), elements=st.floats(-50, 50, width=32))
# The temperature is traced: one compilation for all of them.
_loss = jax.jit(kd_kl)
_grads = jax.jit(
    jax.grad(lambda *args, **kwargs: kd_kl(*args, **kwargs).sum(), argnums=(0, 1)),
)


def _by_hand(student, teacher, temperature):
    """Float64: `T^2 sum_c p_c log(p_c / q_c)`, p of the teacher."""
    losses = []
    for s, t in zip(*(np.asarray(x, np.float64) for x in (student, teacher)), strict=True):
        q, p = softmax(s, temperature), softmax(t, temperature)
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
        temperature * (np.array(softmax(s, temperature)) - softmax(t, temperature))
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


_ce = jax.jit(kd_ce)
_ce_grads = jax.jit(
    jax.grad(lambda *args, **kwargs: kd_ce(*args, **kwargs).sum(), argnums=(0, 1)),
)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_cross_entropy_is_golden_and_kd_kl_with_the_teachers_entropy(temperature):
    found = _ce(STUDENT, TEACHER, temperature=temperature)
    assert found.dtype == jnp.float32
    by_hand, entropy = [], []
    for s, t in zip(*(np.asarray(x, np.float64) for x in (STUDENT, TEACHER)), strict=True):
        q, p = softmax(s, temperature), softmax(t, temperature)
        by_hand.append(-math.fsum(a * math.log(b) for a, b in zip(p, q, strict=True)))
        entropy.append(-math.fsum(a * math.log(a) for a in p))
    np.testing.assert_allclose(found, temperature**2 * np.array(by_hand), rtol=1e-5)
    kl = found - temperature**2 * np.array(entropy)
    np.testing.assert_allclose(kl, _by_hand(STUDENT, TEACHER, temperature), rtol=1e-4, atol=1e-4)


def test_cross_entropy_has_the_gradient_of_kd_kl():
    found = _ce_grads(STUDENT, TEACHER, temperature=4.0)
    expected = _grads(STUDENT, TEACHER, temperature=4.0)
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-4, atol=1e-5)


def test_cross_entropy_with_a_teacher_that_is_sure_is_that_of_its_label():
    label = jnp.array([0, 3, 4, 1, 1, 2])
    sure = 200 * jax.nn.one_hot(label, 5)
    expected = cross_entropy(STUDENT, label)
    np.testing.assert_allclose(_ce(STUDENT, sure, temperature=1.0), expected, rtol=1e-5)


_mse = jax.jit(kd_mse)
_mse_grads = jax.jit(jax.grad(lambda *args: kd_mse(*args).sum(), argnums=(0, 1)))


def test_squares_are_golden_in_value_and_gradient():
    found = _mse(STUDENT, TEACHER)
    assert found.dtype == jnp.float32
    pairs = list(zip(*(np.asarray(x, float).tolist() for x in (STUDENT, TEACHER)), strict=True))
    expected = [math.fsum((a - b) ** 2 for a, b in zip(s, t, strict=True)) / 5 for s, t in pairs]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    grad, teacher_grad = _mse_grads(STUDENT, TEACHER)
    np.testing.assert_allclose(grad, 2 * (STUDENT - TEACHER) / 5, rtol=1e-5)
    assert (np.asarray(teacher_grad) == 0).all()


def test_half_of_the_squares_is_kd_kl_at_a_high_temperature():
    # Kim et al., sec. 3: with centred logits, the limit is the squared distance over 2 classes.
    centred = [x - x.mean(-1, keepdims=True) for x in (STUDENT / 3, TEACHER / 3)]
    found = _loss(*centred, temperature=100.0)
    np.testing.assert_allclose(found, _mse(*centred) / 2, rtol=0.05, atol=5e-3)


_standardized = jax.jit(standardize)


def _standardized_by_hand(logits):
    rows = []
    for row in np.asarray(logits, np.float64).tolist():
        middle = math.fsum(row) / len(row)
        variance = math.fsum((v - middle) ** 2 for v in row) / (len(row) - 1)
        rows.append([(v - middle) / (1e-7 + math.sqrt(variance)) for v in row])
    return np.array(rows)


@pytest.mark.parametrize("size", [1e-6, 1.0, 100.0])
def test_standardized_logits_are_golden(size):
    # At the smallest size the 1e-7 is a third of what is there.
    found = _standardized(size * STUDENT)
    assert found.dtype == jnp.float32
    expected = _standardized_by_hand(size * STUDENT)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@settings(deadline=None, max_examples=20)
@given(st.floats(-30, 30, width=32), st.floats(0.125, 8, width=32))
def test_standardized_logits_are_blind_to_a_shift_and_to_a_positive_scale(shift, scale):
    found = np.asarray(_standardized(STUDENT))
    moved = _standardized(np.float32(scale) * STUDENT + np.float32(shift))
    np.testing.assert_allclose(moved, found, atol=1e-4)
    np.testing.assert_allclose(found.mean(-1), 0, atol=1e-6)
    np.testing.assert_allclose(found.std(-1, ddof=1), 1, rtol=1e-5)


def test_a_loss_of_standardized_logits_is_golden_in_value_and_gradient():
    def loss(student, teacher):
        return kd_kl(standardize(student), standardize(teacher), temperature=2.0)

    def by_hand(student):
        return _by_hand(*(_standardized_by_hand(x) for x in (student, TEACHER)), 2.0)

    np.testing.assert_allclose(jax.jit(loss)(STUDENT, TEACHER), by_hand(STUDENT), rtol=1e-4)
    grads = jax.jit(jax.grad(lambda *args: loss(*args).sum(), argnums=(0, 1)))
    grad, teacher_grad = grads(STUDENT, TEACHER)
    np.testing.assert_allclose(grad, slopes(by_hand, STUDENT), rtol=1e-3, atol=1e-5)
    assert (np.asarray(teacher_grad) == 0).all()
    # Along a row and along a shift of it nothing changes.
    np.testing.assert_allclose((grad * STUDENT).sum(-1), 0, atol=1e-5)
    np.testing.assert_allclose(grad.sum(-1), 0, atol=1e-6)


def test_the_gradient_of_equal_logits_is_that_of_the_mean_alone():
    # Ten times 0.7 has a mean that rounds, and of what is left no std may be made.
    equal = jnp.tile(jnp.array([[0.0], [3.0], [0.7]]), (1, 10))
    np.testing.assert_array_equal(_standardized(equal), 0)
    weight = jnp.asarray(RNG.normal(size=(3, 10)), jnp.float32)
    grads = jax.jit(jax.grad(lambda x: (weight * standardize(x)).sum()))
    expected = (weight - weight.mean(-1, keepdims=True)) / 1e-7
    np.testing.assert_allclose(grads(equal), expected, rtol=1e-4)
