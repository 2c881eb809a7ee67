import math

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

from kdjax.losses import compress, embedding_cosine, embedding_mse, seed
from tests.losses.by_hand import dot, softmax, unit
from tests.losses.laws import slopes

RNG = np.random.default_rng(0)
STUDENT, TEACHER = jnp.asarray(RNG.normal(0, 3, (2, 6, 5)), jnp.float32)

_cosine = jax.jit(embedding_cosine)
_cosine_grads = jax.jit(
    jax.grad(lambda *args: embedding_cosine(*args).sum(), argnums=(0, 1)),
)
# Rows far from zero: there the direction of a row is well defined in float32.
_rows = hnp.arrays(np.float32, (6, 5), elements=st.floats(0.125, 4, width=32)).flatmap(
    lambda size: hnp.arrays(np.float32, (6, 5), elements=st.sampled_from([-1.0, 1.0])).map(
        lambda sign: size * sign
    )
)


def _units(rows):
    return [unit(row) for row in np.asarray(rows, float)]


def test_cosine_is_golden_and_half_of_byols_distance():
    found = _cosine(STUDENT, TEACHER)
    assert found.dtype == jnp.float32
    pairs = list(zip(_units(STUDENT), _units(TEACHER), strict=True))
    by_hand = [1 - math.fsum(a * b for a, b in zip(s, t, strict=True)) for s, t in pairs]
    np.testing.assert_allclose(found, by_hand, rtol=1e-5)
    np.testing.assert_allclose(2 * found, [((s - t) ** 2).sum() for s, t in pairs], rtol=1e-5)


@settings(deadline=None, max_examples=25)
@given(_rows, _rows, hnp.arrays(np.float32, (6, 1), elements=st.floats(2**-6, 2**6, width=32)))
def test_cosine_is_in_its_range_and_blind_to_scale(student, teacher, scale):
    found = np.asarray(_cosine(student, teacher))
    assert ((found >= -1e-6) & (found <= 2 + 1e-6)).all()
    np.testing.assert_allclose(_cosine(student * scale, teacher / scale), found, atol=1e-5)
    np.testing.assert_allclose(_cosine(student, student * scale), 0, atol=1e-5)
    np.testing.assert_allclose(_cosine(student, -student), 2, rtol=1e-5)


def test_cosine_gradient_is_at_right_angles_and_none_reaches_the_teacher():
    grad, teacher_grad = _cosine_grads(STUDENT, TEACHER)
    lengths = np.linalg.norm(np.asarray(STUDENT, float), axis=-1)
    expected = [
        ((s @ t) * s - t) / length
        for s, t, length in zip(_units(STUDENT), _units(TEACHER), lengths, strict=True)
    ]
    np.testing.assert_allclose(grad, expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose((grad * STUDENT).sum(-1), 0, atol=1e-6)
    assert (np.asarray(teacher_grad) == 0).all()
    flat, _ = _cosine_grads(STUDENT, 3 * STUDENT)
    np.testing.assert_allclose(flat, 0, atol=1e-6)


def test_cosine_of_a_zero_row_is_one_and_its_gradient_finite():
    student, teacher = np.array(STUDENT), np.array(TEACHER)
    student[0] = teacher[0] = 0  # both
    student[1] = 0
    teacher[2] = 0
    student[3], teacher[3] = 1e4, -1e4
    found = _cosine(student, teacher)
    np.testing.assert_array_equal(found[:3], 1)
    np.testing.assert_allclose(found[3], 2, rtol=1e-6)
    grad, _ = _cosine_grads(student, teacher)
    assert np.isfinite(grad).all()


def test_cosine_leading_axes_are_free():
    flat = _cosine(STUDENT, TEACHER)
    one = _cosine(STUDENT[1], TEACHER[1])
    assert one.shape == ()
    np.testing.assert_allclose(one, flat[1], rtol=1e-6)
    cube = _cosine(STUDENT.reshape(3, 2, 5), TEACHER.reshape(3, 2, 5))
    np.testing.assert_allclose(cube.ravel(), flat, rtol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_cosine_of_low_precision_is_computed_in_float32(dtype):
    student, teacher = STUDENT.astype(dtype), TEACHER.astype(dtype)
    found = _cosine(student, teacher)
    assert found.dtype == jnp.float32
    wide = _cosine(student.astype(jnp.float32), teacher.astype(jnp.float32))
    np.testing.assert_array_equal(found, wide)


_mse = jax.jit(embedding_mse)
_mse_grads = jax.jit(jax.grad(lambda *args: embedding_mse(*args).sum(), argnums=(0, 1)))


def test_squares_are_golden_in_value_and_gradient():
    found = _mse(STUDENT, TEACHER)
    assert found.dtype == jnp.float32
    pairs = list(zip(*(np.asarray(x, float).tolist() for x in (STUDENT, TEACHER)), strict=True))
    expected = [math.fsum((a - b) ** 2 for a, b in zip(s, t, strict=True)) / 5 for s, t in pairs]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    grad, teacher_grad = _mse_grads(STUDENT, TEACHER)
    np.testing.assert_allclose(grad, 2 * (STUDENT - TEACHER) / 5, rtol=1e-5)
    assert (np.asarray(teacher_grad) == 0).all()


def test_squares_of_unit_rows_are_the_cosine():
    units = [jnp.asarray(_units(x), jnp.float32) for x in (STUDENT, TEACHER)]
    np.testing.assert_allclose(5 * _mse(*units), 2 * _cosine(STUDENT, TEACHER), rtol=1e-5)


QUEUE, STUDENT_QUEUE = jnp.asarray(RNG.normal(0, 3, (2, 8, 5)), jnp.float32)
WIDE, WIDE_QUEUE = (jnp.asarray(RNG.normal(size=(rows, 7)), jnp.float32) for rows in (6, 8))

# The temperatures are traced: one compilation for all of them.
_seed = jax.jit(seed)
_seed_grads = jax.jit(
    jax.grad(lambda *args, **kwargs: seed(*args, **kwargs).sum(), argnums=(0, 1, 2))
)
_compress = jax.jit(compress)
_compress_grads = jax.jit(
    jax.grad(lambda *args, **kwargs: compress(*args, **kwargs).sum(), argnums=(0, 1, 2, 3))
)


def _near(row, anchors, temperature):
    """Float64: a softmax of one row's cosines with some others."""
    (row,), anchors = _units([row]), _units(anchors)
    return softmax([dot(row, z) for z in anchors], temperature)


def _seed_by_hand(student, teacher, queue, student_temperature, teacher_temperature):
    losses = []
    for s, t in zip(np.asarray(student, float), np.asarray(teacher, float), strict=True):
        anchors = [t, *np.asarray(queue, float)]
        q, p = _near(s, anchors, student_temperature), _near(t, anchors, teacher_temperature)
        losses.append(-math.fsum(a * math.log(b) for a, b in zip(p, q, strict=True)))
    return np.array(losses)


def _compress_by_hand(student, teacher, student_queue, teacher_queue, temperature):
    losses = []
    for s, t in zip(np.asarray(student, float), np.asarray(teacher, float), strict=True):
        q, p = _near(s, student_queue, temperature), _near(t, teacher_queue, temperature)
        losses.append(math.fsum(a * math.log(a / b) for a, b in zip(p, q, strict=True)))
    return np.array(losses)


@pytest.mark.parametrize(
    ("student_temperature", "teacher_temperature"), [(0.2, 1e-4), (0.07, 0.07), (0.2, 0.5)]
)
def test_seed_is_golden_in_value_and_gradient(student_temperature, teacher_temperature):
    numbers = {
        "student_temperature": student_temperature,
        "teacher_temperature": teacher_temperature,
    }
    found = _seed(STUDENT, TEACHER, QUEUE, **numbers)
    assert found.dtype == jnp.float32
    expected = _seed_by_hand(STUDENT, TEACHER, QUEUE, **numbers)
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    grad, *others = _seed_grads(STUDENT, TEACHER, QUEUE, **numbers)
    expected = slopes(lambda s: _seed_by_hand(s, TEACHER, QUEUE, **numbers), STUDENT)
    np.testing.assert_allclose(grad, expected, rtol=1e-3, atol=1e-5)
    assert all((np.asarray(g) == 0).all() for g in others)


def test_seed_with_a_cold_teacher_is_infonce_with_the_teacher_as_positive():
    found = _seed(STUDENT, TEACHER, QUEUE, student_temperature=0.2, teacher_temperature=1e-4)
    columns = zip(STUDENT, TEACHER, strict=True)
    expected = [-math.log(_near(s, [t, *np.asarray(QUEUE)], 0.2)[0]) for s, t in columns]
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_seed_is_least_where_the_student_is_the_teacher_and_equals_its_entropy():
    both = {"student_temperature": 0.3, "teacher_temperature": 0.3}
    found = _seed(2 * TEACHER, TEACHER, QUEUE, **both)
    p = [_near(t, [t, *np.asarray(QUEUE)], 0.3) for t in np.asarray(TEACHER, float)]
    entropy = [-math.fsum(v * math.log(v) for v in row) for row in p]
    np.testing.assert_allclose(found, entropy, rtol=1e-4)
    assert (_seed(STUDENT, TEACHER, QUEUE, **both) > found).all()
    grad, *_ = _seed_grads(2 * TEACHER, TEACHER, QUEUE, **both)
    np.testing.assert_allclose(grad, 0, atol=1e-6)


@pytest.mark.parametrize("temperature", [0.04, 0.5])
def test_compress_is_golden_in_value_and_gradient(temperature):
    arrays = STUDENT, WIDE, STUDENT_QUEUE, WIDE_QUEUE
    found = _compress(*arrays, temperature=temperature)
    assert found.dtype == jnp.float32
    expected = _compress_by_hand(*arrays, temperature)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    grad, *others = _compress_grads(*arrays, temperature=temperature)
    expected = slopes(lambda s: _compress_by_hand(s, *arrays[1:], temperature), STUDENT)
    np.testing.assert_allclose(grad, expected, rtol=1e-3, atol=1e-5)
    assert all((np.asarray(g) == 0).all() for g in others)


def test_compress_is_zero_and_flat_where_both_see_their_anchors_alike():
    # A rotation of the whole space leaves every cosine as it was: no width, no axis is compared.
    turn, _ = np.linalg.qr(RNG.normal(size=(7, 7)))
    turn = jnp.asarray(turn, jnp.float32)
    same = WIDE @ turn, WIDE, WIDE_QUEUE @ turn, WIDE_QUEUE
    np.testing.assert_allclose(_compress(*same, temperature=0.1), 0, atol=1e-5)
    grad, *_ = _compress_grads(*same, temperature=0.1)
    np.testing.assert_allclose(grad, 0, atol=1e-4)


@settings(deadline=None, max_examples=15)
@given(
    hnp.arrays(np.float32, (6, 1), elements=st.floats(2**-6, 2**6, width=32)),
    hnp.arrays(np.float32, (8, 1), elements=st.floats(2**-6, 2**6, width=32)),
    st.permutations(range(8)),
)
def test_both_are_blind_to_scale_and_to_the_order_of_the_queue(scale, queue_scale, order):
    order = np.array(order)
    numbers = {"student_temperature": 0.2, "teacher_temperature": 0.3}
    found = _seed(STUDENT, TEACHER, QUEUE, **numbers)
    queue = (queue_scale * QUEUE)[order]
    moved = _seed(scale * STUDENT, TEACHER / scale, queue, **numbers)
    np.testing.assert_allclose(moved, found, rtol=1e-4, atol=1e-5)

    found = _compress(STUDENT, WIDE, STUDENT_QUEUE, WIDE_QUEUE, temperature=0.2)
    assert (np.asarray(found) >= 0).all()
    queues = (queue_scale * STUDENT_QUEUE)[order], (WIDE_QUEUE / queue_scale)[order]
    moved = _compress(scale * STUDENT, WIDE / scale, *queues, temperature=0.2)
    np.testing.assert_allclose(moved, found, rtol=1e-4, atol=1e-5)


def test_a_zero_row_is_as_near_to_all_anchors():
    zero = jnp.zeros((6, 5))
    found = _seed(zero, TEACHER, QUEUE, student_temperature=0.2, teacher_temperature=1e-4)
    np.testing.assert_allclose(found, math.log(9), rtol=1e-5)
    found = _compress(zero, TEACHER, QUEUE, QUEUE, temperature=0.04)
    entropy = [-math.fsum(p * math.log(p) for p in _near(t, QUEUE, 0.04)) for t in TEACHER]
    np.testing.assert_allclose(found, math.log(8) - np.array(entropy), rtol=1e-4)
