import functools
import math

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

from kdjax.losses import batch_level_kd, class_level_kd, dist, kd_kl, multi_level_kd
from kdjax.types import BadInput
from tests.losses.by_hand import dot, softmax
from tests.losses.laws import slopes

RNG = np.random.default_rng(0)
STUDENT, TEACHER = jnp.asarray(RNG.normal(0, 2, (2, 6, 5)), jnp.float32)


def _probabilities(logits, temperature):
    return [softmax(row, temperature) for row in np.asarray(logits, np.float64)]


def _pearson(x, y):
    centred = [[v - math.fsum(z) / len(z) for v in z] for z in (x, y)]
    xy, xx, yy = (
        math.fsum(a * b for a, b in zip(centred[i], centred[j], strict=True))
        for i, j in [(0, 1), (0, 0), (1, 1)]
    )
    return xy / (math.sqrt(xx) * math.sqrt(yy) + 1e-8)


def _dist_by_hand(student, teacher, beta, gamma, temperature):
    q, p = (_probabilities(x, temperature) for x in (student, teacher))
    inter = [_pearson(a, b) for a, b in zip(q, p, strict=True)]
    intra = [
        _pearson(a, b) for a, b in zip(zip(*q, strict=True), zip(*p, strict=True), strict=True)
    ]
    means = [math.fsum(x) / len(x) for x in (inter, intra)]
    return temperature**2 * (beta * (1 - means[0]) + gamma * (1 - means[1]))


def _gram_distance(q, p):
    """The squared differences of all dot products, and how many rows there are."""
    pairs = [(i, k) for i in range(len(q)) for k in range(len(q))]
    return math.fsum((dot(q[i], q[k]) - dot(p[i], p[k])) ** 2 for i, k in pairs) / len(q)


def _batch_by_hand(student, teacher, temperature):
    return _gram_distance(*(_probabilities(x, temperature) for x in (student, teacher)))


def _class_by_hand(student, teacher, temperature):
    q, p = (_probabilities(x, temperature) for x in (student, teacher))
    return _gram_distance(list(zip(*q, strict=True)), list(zip(*p, strict=True)))


def _multi_by_hand(student, teacher, temperatures):
    loss = 0.0
    for temperature in temperatures:
        q, p = (_probabilities(x, temperature) for x in (student, teacher))
        terms = [
            math.fsum(a * math.log(a / b) for a, b in zip(t, s, strict=True))
            for s, t in zip(q, p, strict=True)
        ]
        loss += temperature**2 * math.fsum(terms) / len(terms)
        loss += _batch_by_hand(student, teacher, temperature)
        loss += _class_by_hand(student, teacher, temperature)
    return loss


CASES = [
    (dist, _dist_by_hand, {"beta": 1.0, "gamma": 1.0, "temperature": 1.0}),
    (dist, _dist_by_hand, {"beta": 2.0, "gamma": 0.5, "temperature": 4.0}),
    (dist, _dist_by_hand, {"beta": 1.0, "gamma": 0.0, "temperature": 2.0}),
    (batch_level_kd, _batch_by_hand, {"temperature": 1.0}),
    (batch_level_kd, _batch_by_hand, {"temperature": 4.0}),
    (class_level_kd, _class_by_hand, {"temperature": 1.0}),
    (class_level_kd, _class_by_hand, {"temperature": 4.0}),
    (multi_level_kd, _multi_by_hand, {"temperatures": (2.0, 3.0, 4.0)}),
]
LOSSES = pytest.mark.parametrize(
    ("loss", "numbers"), [(CASES[i][0], CASES[i][2]) for i in (1, 3, 5, 7)]
)


@functools.cache
def _compiled(loss):
    """`(loss, gradient)`; numbers are traced, but for a tuple of temperatures."""
    static = "temperatures" if loss is multi_level_kd else None
    return jax.jit(jax.value_and_grad(loss), static_argnames=static)


@pytest.mark.parametrize(("loss", "by_hand", "numbers"), CASES)
def test_golden_in_value_and_gradient(loss, by_hand, numbers):
    found, grad = _compiled(loss)(STUDENT, TEACHER, **numbers)
    assert found.shape == ()
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, by_hand(STUDENT, TEACHER, **numbers), rtol=1e-4)
    expected = slopes(lambda s: by_hand(s, TEACHER, **numbers), STUDENT)
    np.testing.assert_allclose(grad, expected, rtol=1e-3, atol=1e-5)


def test_the_epsilon_is_added_to_the_product_of_the_norms():
    # At this size a norm is about 4e-4: held above 1e-8 each, nothing would change.
    numbers = {"beta": 1.0, "gamma": 1.0, "temperature": 1.0}
    student, teacher = STUDENT / 2000, TEACHER / 2000
    found, _ = _compiled(dist)(student, teacher, **numbers)
    expected = _dist_by_hand(student, teacher, **numbers)
    np.testing.assert_allclose(found, expected, rtol=2e-3)
    without, _ = _compiled(dist)(STUDENT / 20, TEACHER / 20, **numbers)
    assert abs(float(found - without)) > 0.02


@LOSSES
def test_is_zero_and_flat_where_the_two_are_equal(loss, numbers):
    # A shift of a row is none of its probabilities.
    moved = TEACHER + jnp.array([[1.0], [-2.0], [3.0], [0.0], [5.0], [-1.0]])
    found, grad = _compiled(loss)(moved, TEACHER, **numbers)
    np.testing.assert_allclose(found, 0, atol=1e-4)
    np.testing.assert_allclose(grad, 0, atol=1e-4)


_logits = hnp.arrays(np.float32, (6, 5), elements=st.floats(-30, 30, width=32))


@LOSSES
@settings(deadline=None, max_examples=10)
@given(student=_logits, teacher=_logits, examples=st.permutations(range(6)))
def test_is_never_negative_and_blind_to_the_order_of_examples(
    loss, numbers, student, teacher, examples
):
    found, _ = _compiled(loss)(student, teacher, **numbers)
    assert found >= -1e-3
    if loss is dist:
        assert found <= 2 * numbers["temperature"] ** 2 * (2.0 + 0.5) + 1e-3
    order = np.array(examples)
    moved, _ = _compiled(loss)(student[order], teacher[order], **numbers)
    np.testing.assert_allclose(moved, found, rtol=1e-3, atol=1e-3)


def test_dist_leaves_a_student_its_own_sharpness():
    # Twice as sure of everything, in the same proportion: both correlations are one.
    p = np.array(_probabilities(TEACHER, 1.0))
    closer = 0.2 + 0.5 * (p - 0.2)
    numbers = {"beta": 1.0, "gamma": 1.0, "temperature": 1.0}
    student = jnp.asarray(np.log(closer), jnp.float32)
    found, _ = _compiled(dist)(student, TEACHER, **numbers)
    np.testing.assert_allclose(found, 0, atol=1e-5)
    assert (kd_kl(student, TEACHER) > 0.01).any()


def test_what_has_no_spread_correlates_with_nothing():
    numbers = {"beta": 2.0, "gamma": 0.5, "temperature": 4.0}
    flat = jnp.full((6, 5), 0.7, "f")
    found, grad = _compiled(dist)(flat, TEACHER, **numbers)
    np.testing.assert_allclose(found, 16 * 2.5, rtol=1e-6)
    # Divided by 1e-8 and nothing else: not by what rounding leaves of equal numbers.
    expected = slopes(lambda s: _dist_by_hand(s, TEACHER, **numbers), flat, step=1e-11)
    np.testing.assert_allclose(grad, expected, rtol=1e-2, atol=1e-3 * np.abs(expected).max())
    # One example: its classes have no spread over examples.
    found, _ = _compiled(dist)(STUDENT[:1], TEACHER[:1], **numbers)
    expected = _dist_by_hand(STUDENT[:1], TEACHER[:1], **numbers)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_the_levels_see_what_the_others_do_not():
    # Classes changed places: examples are as alike as before, classes are not. And the reverse.
    numbers = {"temperature": 1.0}
    turned, swapped = jnp.roll(TEACHER, 1, axis=1), jnp.roll(TEACHER, 1, axis=0)
    for loss, blind_to, sees in [
        (batch_level_kd, turned, swapped),
        (class_level_kd, swapped, turned),
    ]:
        np.testing.assert_allclose(_compiled(loss)(blind_to, TEACHER, **numbers)[0], 0, atol=1e-6)
        assert _compiled(loss)(sees, TEACHER, **numbers)[0] > 0.05


@pytest.mark.parametrize("temperatures", [(), (2.0, 0.0), (-1.0,), (math.nan,)])
def test_bad_temperatures_are_named(temperatures):
    with pytest.raises(BadInput, match=r"^temperatures: "):
        multi_level_kd(STUDENT, TEACHER, temperatures=temperatures)
