"""A class that cannot be, a logit of -inf on both sides: every loss is that of the other classes."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.losses import (
    cross_entropy,
    dist,
    dkd,
    kd_ce,
    kd_kl,
    kd_kl_top_k,
    kd_mse,
    multi_level_kd,
    standardize,
    tf_kd,
    top_k_signal,
)
from tests.losses.by_hand import softmax
from tests.losses.laws import slopes

ROWS, CLASSES = 6, 7
RNG = np.random.default_rng(0)
# Of each row another set of classes is left, three at least in the first five; of the last row two.
LEFT = [[0, 1, 2, 3, 4, 5, 6], [1, 2, 4], [0, 6, 3], [2, 3, 4, 5, 6], [0, 1, 2, 5], [4, 5]]
LABEL = [3, 2, 0, 5, 1, 5]
POSSIBLE = np.array([[c in left for c in range(CLASSES)] for left in LEFT])
STUDENT, TEACHER = np.where(POSSIBLE, RNG.normal(0, 2, (2, ROWS, CLASSES)), -np.inf)


def _kl(p, q):
    return math.fsum(a * math.log(a / b) for a, b in zip(p, q, strict=True) if a > 0)


def _kd_kl(s, t, y, temperature=2.0):
    return temperature**2 * _kl(softmax(t, temperature), softmax(s, temperature))


def _kd_ce(s, t, y):
    p, q = softmax(t, 4.0), softmax(s, 4.0)
    return -16 * math.fsum(a * math.log(b) for a, b in zip(p, q, strict=True))


def _kd_mse(s, t, y):
    return float(np.mean((s - t) ** 2))


def _dkd(s, t, y):
    q, p = softmax(s, 2.0), softmax(t, 2.0)
    q_others, p_others = ([x for c, x in enumerate(r) if c != y] for r in (q, p))
    q_rest, p_rest = math.fsum(q_others), math.fsum(p_others)
    within = _kl([x / p_rest for x in p_others], [x / q_rest for x in q_others])
    return 4 * (_kl([p[y], p_rest], [q[y], q_rest]) + 8 * within)


def _smoothed(smoothing):
    def loss(s, t, y):
        q = softmax(s)
        wanted = [smoothing / len(s) + (1 - smoothing) * (c == y) for c in range(len(s))]
        return -math.fsum(a * math.log(b) for a, b in zip(wanted, q, strict=True))

    return loss


def _tf_kd(s, t, y):
    rest = 0.1 / (len(s) - 1)
    virtual = np.array([math.log(0.9 if c == y else rest) for c in range(len(s))])
    return _kd_kl(s, virtual, y, 3.0)


def _standardized(s, t, y):
    def rows(x):
        return (x - x.mean()) / (1e-7 + x.std(ddof=1))

    return _kd_kl(rows(s), rows(t), y)


def _top(s, t, label):
    indices, log_probs, tail = top_k_signal(t, k=2, temperatures=(2.0,))
    return kd_kl_top_k(s, indices, log_probs, tail[..., 0], temperature=2.0)


def _top_2(s, t, y):
    def outcomes(x):
        p = softmax(x, 2.0)
        return [p[c] for c in kept] + [math.fsum(v for c, v in enumerate(p) if c not in kept)]

    kept = np.argsort(-t)[:2].tolist()
    return 4 * _kl(outcomes(t), outcomes(s))


LOSSES = {
    "kd_kl": (lambda s, t, y: kd_kl(s, t, temperature=2.0), _kd_kl),
    "kd_ce": (lambda s, t, y: kd_ce(s, t, temperature=4.0), _kd_ce),
    "kd_mse": (lambda s, t, y: kd_mse(s, t), _kd_mse),
    "dkd": (lambda s, t, y: dkd(s, t, y, alpha=1.0, beta=8.0, temperature=2.0), _dkd),
    "cross_entropy": (lambda s, t, y: cross_entropy(s, y), _smoothed(0.0)),
    "smoothed": (lambda s, t, y: cross_entropy(s, y, label_smoothing=0.3), _smoothed(0.3)),
    "tf_kd": (lambda s, t, y: tf_kd(s, y, correct_probability=0.9, temperature=3.0), _tf_kd),
    "standardize": (
        lambda s, t, y: kd_kl(standardize(s), standardize(t), temperature=2.0),
        _standardized,
    ),
    "kd_kl_top_k": (_top, _top_2),
}


@pytest.mark.parametrize("name", LOSSES)
def test_value_and_gradient_are_those_of_the_other_classes(name):
    loss, by_hand = LOSSES[name]

    def of_row(s, row):
        return by_hand(np.asarray(s), TEACHER[row, LEFT[row]], LEFT[row].index(LABEL[row]))

    expected = [of_row(STUDENT[row, left], row) for row, left in enumerate(LEFT)]
    slope = np.zeros((ROWS, CLASSES))
    for row, left in enumerate(LEFT):
        slope[row, left] = slopes(lambda s, row=row: of_row(s, row), STUDENT[row, left])

    @jax.jit
    def both(s, t):
        losses = loss(s, t, jnp.asarray(LABEL))
        grads = jax.grad(lambda *x: loss(*x, jnp.asarray(LABEL)).sum(), argnums=(0, 1))(s, t)
        return losses, *grads

    losses, grad, to_teacher = both(*(jnp.asarray(x, jnp.float32) for x in (STUDENT, TEACHER)))
    np.testing.assert_allclose(losses, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(grad, slope, rtol=2e-3, atol=2e-4)
    assert (np.asarray(grad)[~POSSIBLE] == 0).all()
    assert (np.asarray(to_teacher) == 0).all()


@pytest.mark.parametrize("name", [n for n in LOSSES if n not in ("standardize", "tf_kd")])
def test_what_the_student_alone_holds_impossible_costs_infinitely_much(name):
    student, teacher = np.array(STUDENT[:1]), TEACHER[:1]
    best = int(teacher.argmax())
    student[0, best] = -np.inf
    found = LOSSES[name][0](jnp.asarray(student), jnp.asarray(teacher), jnp.array([best]))
    assert np.asarray(found) == [np.inf]


@pytest.mark.parametrize("name", LOSSES)
def test_nan_is_seen(name):
    student = np.array(STUDENT)
    student[:, 5] = np.nan
    found = LOSSES[name][0](jnp.asarray(student), jnp.asarray(TEACHER), jnp.asarray(LABEL))
    assert np.isnan(found).all()


@pytest.mark.parametrize(
    "loss",
    [
        lambda s, t: dist(s, t, beta=1.0, gamma=1.0, temperature=2.0),
        lambda s, t: multi_level_kd(s, t, temperatures=(1.0, 4.0)),
    ],
    ids=["dist", "multi_level_kd"],
)
def test_relations_of_a_batch_see_a_probability_of_zero(loss):
    # The same as a logit so low that float32 has no probability for it.
    low = [jnp.asarray(np.where(POSSIBLE, x, -1e4), jnp.float32) for x in (STUDENT, TEACHER)]
    none = [jnp.asarray(x, jnp.float32) for x in (STUDENT, TEACHER)]
    both = jax.jit(jax.value_and_grad(loss))
    for found, expected in zip(both(*none), both(*low), strict=True):
        np.testing.assert_array_equal(found, expected)
        assert np.isfinite(found).all()


@pytest.mark.parametrize("name", ["kd_kl", "kd_ce", "kd_mse", "dkd", "cross_entropy", "tf_kd"])
def test_the_only_class_that_can_be_costs_nothing(name):
    only = jnp.array([[-jnp.inf, 1.5, -jnp.inf]])

    def loss(s):
        return LOSSES[name][0](s, only, jnp.array([1])).sum()

    value, grad = jax.jit(jax.value_and_grad(loss))(only)
    assert value == 0
    assert (np.asarray(grad) == 0).all()
