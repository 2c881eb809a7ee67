import functools
import math

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

from kdjax.losses import dino, dino_center, sinkhorn, swav
from kdjax.types import BadInput
from tests.losses.by_hand import softmax
from tests.losses.cases.clusters import CASES, codes_by_hand

STUDENT, TEACHER, CENTER = CASES[0].arrays


def test_dino_is_least_where_the_student_says_what_the_teacher_does():
    scores = jnp.tile(TEACHER[:1], (3, 1, 1))
    same = {"student_temperature": 0.1, "teacher_temperature": 0.1}
    found, grad = jax.jit(
        jax.value_and_grad(lambda student: dino(student, scores[:2], jnp.zeros(5), **same).sum())
    )(scores)
    p = [softmax(row) for row in np.asarray(TEACHER[0], float) / 0.1]
    np.testing.assert_allclose(found, -np.sum(np.multiply(p, np.log(p))), rtol=1e-5)
    np.testing.assert_allclose(grad, 0, atol=1e-5)


def test_dino_does_not_look_at_the_same_crop():
    # Two views: each of the teacher's meets the student's other one alone.
    only = {"student_temperature": 0.1, "teacher_temperature": 0.05}
    loss = jax.jit(functools.partial(dino, **only))
    swapped = loss(STUDENT[:2][::-1], TEACHER[::-1], CENTER)
    found = loss(STUDENT[:2], TEACHER, CENTER)
    np.testing.assert_allclose(swapped, found, rtol=1e-6)
    grad = jax.jit(jax.grad(lambda student: loss(student, TEACHER[:1], CENTER).sum()))(STUDENT[:2])
    assert (np.asarray(grad[0]) == 0).all()
    assert np.abs(grad[1]).max() > 0.1


@settings(deadline=None, max_examples=10)
@given(hnp.arrays(np.float32, (5,), elements=st.floats(-20, 20, width=32)))
def test_the_center_is_taken_from_the_teacher(shift):
    found, _ = CASES[0].run([STUDENT, TEACHER + shift[None, None, :], CENTER + shift])
    np.testing.assert_allclose(found, CASES[0].run(CASES[0].arrays)[0], rtol=1e-3)


def test_the_temperature_of_dinos_teacher_may_be_traced():
    loss = jax.jit(functools.partial(dino, student_temperature=0.1))
    found = loss(STUDENT, TEACHER, CENTER, teacher_temperature=jnp.float32(0.055))
    np.testing.assert_allclose(found, CASES[0].run(CASES[0].arrays)[0], rtol=1e-5)


@pytest.mark.parametrize("momentum", [0.0, 0.9, 1.0])
def test_center_is_golden(momentum):
    rows = np.asarray(TEACHER, np.float64).reshape(-1, 5)
    mean = [math.fsum(column) / len(rows) for column in rows.T]
    expected = momentum * np.asarray(CENTER) + (1 - momentum) * np.array(mean)
    found = dino_center(CENTER, TEACHER, momentum=momentum)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_center_of_low_precision_is_kept_in_float32():
    low = TEACHER.astype(jnp.bfloat16)
    found = dino_center(CENTER, low, momentum=0.9)
    assert found.dtype == jnp.float32
    np.testing.assert_array_equal(found, dino_center(CENTER, low.astype(jnp.float32), momentum=0.9))


def test_eight_devices_move_one_center():
    scores = jnp.asarray(np.random.default_rng(5).normal(size=(2, 16, 5)), jnp.float32)
    one = dino_center(CENTER, scores, momentum=0.5)
    center = functools.partial(dino_center, momentum=0.5, axis_name="data")
    mapped = jax.pmap(center, axis_name="data", in_axes=(None, 1))
    for device in np.asarray(mapped(CENTER, scores.reshape(2, 8, 2, 5))):
        np.testing.assert_allclose(device, one, rtol=1e-5, atol=1e-6)


_sinkhorn = jax.jit(sinkhorn, static_argnames=("epsilon", "iterations", "axis_name"))


@pytest.mark.parametrize("iterations", [0, 1, 3, 10])
@pytest.mark.parametrize("reach", [1.0, 4.0, 30.0, 1000.0])
def test_codes_are_golden_at_any_scale(reach, iterations):
    scores = np.random.default_rng(6).uniform(-reach, reach, (8, 4)).astype(np.float32)
    found = _sinkhorn(scores, epsilon=0.05, iterations=iterations)
    assert found.dtype == jnp.float32
    expected = codes_by_hand(scores, epsilon=0.05, iterations=iterations)
    # Rounded to float32, the scores over epsilon are this far off.
    off = 2.0**-23 * reach / 0.05
    np.testing.assert_allclose(found, expected, rtol=1e-4 + 8 * off, atol=1e-6 + off)


@settings(deadline=None, max_examples=20)
@given(
    hnp.arrays(np.float32, (6, 5), elements=st.floats(-30, 30, width=32)),
    hnp.arrays(np.float32, (1, 5), elements=st.floats(-1, 1, width=32)),
)
def test_rows_of_codes_sum_to_one_and_no_prototype_is_favoured(scores, favour):
    found = _sinkhorn(scores, epsilon=0.5, iterations=3)
    np.testing.assert_allclose(found.sum(-1), 1, rtol=1e-5)
    np.testing.assert_allclose(
        _sinkhorn(scores + favour, epsilon=0.5, iterations=3), found, rtol=1e-3, atol=1e-3
    )


def test_codes_use_all_prototypes_alike_in_the_end():
    scores = np.random.default_rng(7).uniform(-1, 1, (6, 3)).astype(np.float32)
    found = _sinkhorn(scores, epsilon=0.5, iterations=100)
    np.testing.assert_allclose(found.sum(0), 2, rtol=1e-4)


@pytest.mark.parametrize("scores", [np.zeros((4, 3)), np.full((4, 3), 1e6), -np.full((4, 3), 30)])
def test_constant_scores_have_even_codes(scores):
    found = _sinkhorn(jnp.asarray(scores, jnp.float32), epsilon=0.05, iterations=3)
    np.testing.assert_allclose(found, 1 / 3, rtol=1e-5)


def test_eight_devices_share_one_assignment_and_views_are_apart():
    scores = jnp.asarray(np.random.default_rng(8).uniform(-30, 30, (2, 16, 5)), jnp.float32)
    one = _sinkhorn(scores, epsilon=0.5, iterations=3)
    for view in range(2):
        np.testing.assert_allclose(
            one[view], _sinkhorn(scores[view], epsilon=0.5, iterations=3), rtol=1e-5, atol=1e-7
        )
    codes = functools.partial(sinkhorn, epsilon=0.5, iterations=3, axis_name="data")
    mapped = jax.pmap(codes, axis_name="data", in_axes=1, out_axes=1)
    found = mapped(scores.reshape(2, 8, 2, 5)).reshape(2, 16, 5)
    np.testing.assert_allclose(found, one, rtol=1e-4, atol=1e-6)


def test_swav_is_never_below_the_entropy_of_its_codes_and_blind_to_the_order_of_small_crops():
    (scores,) = CASES[2].arrays
    found, _ = CASES[2].run([scores])
    codes = np.asarray(_sinkhorn(scores[:2], epsilon=0.05, iterations=3), np.float64)
    entropy = -(codes * np.log(np.maximum(codes, 1e-30))).sum(-1).mean(0)
    assert (np.asarray(found) > entropy).all()
    swapped, _ = CASES[2].run([scores[np.array([0, 1, 3, 2])]])
    np.testing.assert_allclose(swapped, found, rtol=1e-5)


@pytest.mark.parametrize(
    ("call", "field"),
    [
        (lambda: dino(STUDENT[:1], TEACHER, CENTER, **_COLD), "views"),
        (lambda: dino(STUDENT[:1], TEACHER[:1], CENTER, **_COLD), "views"),
        (lambda: swav(STUDENT[:1], assigned=1), "views"),
        (lambda: swav(STUDENT, assigned=5), "assigned"),
        (lambda: swav(STUDENT, assigned=0), "assigned"),
    ],
)
def test_bad_input_names_the_field(call, field):
    with pytest.raises(BadInput, match=f"^{field}: "):
        call()


_COLD = {"student_temperature": 0.1, "teacher_temperature": 0.04}
