import decimal
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
from tests.losses import laws
from tests.losses.by_hand import dot, softmax
from tests.losses.laws import Case


def _codes_by_hand(scores, *, epsilon, iterations):
    """Sinkhorn as in the authors' code, exponentiated first; many digits hold any score."""
    with decimal.localcontext(prec=40, Emax=10**9, Emin=-(10**9)):
        q = [
            [(decimal.Decimal(float(s)) / decimal.Decimal(epsilon)).exp() for s in r]
            for r in scores
        ]
        for _ in range(iterations):
            share = [sum(row[k] for row in q) for k in range(len(q[0]))]
            q = [[value / s for value, s in zip(row, share, strict=True)] for row in q]
            q = [[value / sum(row) for value in row] for row in q]
        return np.array([[float(value / sum(row)) for value in row] for row in q])


def _cross_entropy(p, scores):
    return -dot(np.array(p), np.log(softmax(scores)))


def _dino_by_hand(arrays, _, student_temperature, teacher_temperature):
    student, teacher, center = arrays
    losses = []
    for i in range(student.shape[1]):
        total, pairs = 0.0, 0
        for t in range(len(teacher)):
            p = softmax((teacher[t, i] - center) / teacher_temperature)
            for v in range(len(student)):
                if v != t:
                    total += _cross_entropy(p, student[v, i] / student_temperature)
                    pairs += 1
        losses.append(total / pairs)
    return np.array(losses)


def _swav_by_hand(arrays, fixed, assigned, temperature=0.1):
    scores, losses = arrays[0], 0.0
    for a in range(assigned):
        codes = _codes_by_hand(fixed[0][a], epsilon=0.05, iterations=3)
        others = [v for v in range(len(scores)) if v != a]
        for v in others:
            each = zip(codes, scores[v], strict=True)
            losses += np.array([_cross_entropy(p, s / temperature) for p, s in each]) / len(others)
    return losses / assigned


def _logits(random, rows, views=4):
    return [
        random.normal(0, 0.5, (views, rows, 5)),
        random.normal(0, 0.1, (2, rows, 5)),
        random.normal(0, 0.1, 5),
    ]


def _scores(random, rows):
    return [random.uniform(-1, 1, (4, rows, 5))]


def _dino(views):
    temperatures = {"student_temperature": 0.1, "teacher_temperature": 0.055}
    return Case(
        f"dino {views}",
        functools.partial(dino, **temperatures),
        functools.partial(_logits, views=views),
        functools.partial(_dino_by_hand, **temperatures),
        rows=1,
    )


def _swav(assigned):
    return Case(
        f"swav {assigned}",
        functools.partial(swav, assigned=assigned),
        _scores,
        functools.partial(_swav_by_hand, assigned=assigned),
        batch_axes=(1,),
        rows=1,
    )


CASES = [_dino(4), _dino(2), _swav(2), _swav(1)]
every = pytest.mark.parametrize(**laws.named(CASES))


@every
def test_golden(case):
    laws.check_value(case)


# The codes of SwAV are slow by hand.
@pytest.mark.parametrize(**laws.named(CASES[:3]))
def test_gradient(case):
    laws.check_gradient(case)


@every
def test_hard_rows_stay_finite(case):
    laws.check_finite(case)


@every
def test_low_precision_is_computed_in_float32(case):
    laws.check_low_precision(case)


@every
def test_second_call_does_not_retrace(case):
    laws.check_no_retrace(case)


def test_eight_devices_give_the_loss_and_the_gradient_of_one():
    laws.check_devices(CASES[2])


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
    expected = _codes_by_hand(scores, epsilon=0.05, iterations=iterations)
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
