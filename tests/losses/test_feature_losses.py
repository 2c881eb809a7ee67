"""What holds for every loss between the features of a student and of a teacher."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import losses
from tests.losses import by_hand

RNG = np.random.default_rng(0)


def _draw(*shape):
    return jnp.asarray(RNG.normal(0, 1.5, shape), jnp.float32)


LOG_SCALE, MARGIN = _draw(3), jnp.array([-1.2, -0.3, -2.0])


class Case(NamedTuple):
    """Arrays, or tuples of arrays, that `loss` and `by_hand` take; both give `[batch]`."""

    loss: Callable[[Any, Any], Any]
    by_hand: Callable[[Any, Any], Any]
    student: Any
    teacher: Any
    lowest: float = 0.0  # the loss where the student is the teacher


def _vid(student, teacher):
    return losses.vid(student, teacher, LOG_SCALE)


def _ofd(student, teacher):
    return losses.ofd(student, teacher, MARGIN)


def _relation(name, *student_shape):
    student_shape = student_shape or (6, 4)
    return Case(getattr(losses, name), getattr(by_hand, name), _draw(*student_shape), _draw(6, 7))


CASES = {
    "hint_mse": Case(losses.hint_mse, by_hand.hint_mse, _draw(4, 3, 2, 5), _draw(4, 3, 2, 5)),
    "hint_mse-vectors": Case(losses.hint_mse, by_hand.hint_mse, _draw(4, 5), _draw(4, 5)),
    "attention_transfer": Case(
        losses.attention_transfer, by_hand.attention_transfer, _draw(4, 4, 3, 2), _draw(4, 4, 3, 5)
    ),
    "attention_transfer-student-larger": Case(
        losses.attention_transfer, by_hand.attention_transfer, _draw(4, 5, 5, 2), _draw(4, 3, 3, 3)
    ),
    "attention_transfer-teacher-larger": Case(
        losses.attention_transfer, by_hand.attention_transfer, _draw(4, 2, 2, 4), _draw(4, 4, 5, 3)
    ),
    "nst": Case(losses.nst, by_hand.nst, _draw(4, 3, 2, 5), _draw(4, 3, 2, 4)),
    "nst-student-larger": Case(losses.nst, by_hand.nst, _draw(4, 5, 5, 2), _draw(4, 3, 3, 3)),
    "nst-teacher-larger": Case(losses.nst, by_hand.nst, _draw(4, 3, 3, 2), _draw(4, 6, 6, 3)),
    "vid": Case(
        _vid,
        lambda s, t: by_hand.vid(s, t, LOG_SCALE),
        _draw(4, 3, 2, 3),
        _draw(4, 3, 2, 3),
        lowest=float(jnp.log(jax.nn.softplus(LOG_SCALE) + 1e-5).mean() / 2),
    ),
    "vid-vectors": Case(
        _vid,
        lambda s, t: by_hand.vid(s, t, LOG_SCALE),
        _draw(4, 3),
        _draw(4, 3),
        lowest=float(jnp.log(jax.nn.softplus(LOG_SCALE) + 1e-5).mean() / 2),
    ),
    "fsp": Case(
        losses.fsp,
        by_hand.fsp,
        (_draw(4, 5, 5, 2), _draw(4, 3, 3, 4)),
        (_draw(4, 3, 3, 2), _draw(4, 4, 4, 4)),
    ),
    "ofd": Case(_ofd, lambda s, t: by_hand.ofd(s, t, MARGIN), _draw(4, 3, 4, 3), _draw(4, 3, 4, 3)),
    "review_hcl": Case(
        losses.review_hcl,
        by_hand.review_hcl,
        tuple(_draw(4, side, side, side + 1) for side in (5, 4, 1)),
        tuple(_draw(4, side, side, side + 1) for side in (5, 4, 1)),
    ),
    "rkd_distance": _relation("rkd_distance"),
    "rkd_angle": _relation("rkd_angle"),
    "similarity_preserving": _relation("similarity_preserving"),
    "similarity_preserving-maps": _relation("similarity_preserving", 6, 2, 2, 3),
    "correlation_congruence": _relation("correlation_congruence"),
    "pkt": _relation("pkt"),
}
every = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
each_loss = pytest.mark.parametrize(
    "case",
    [case for name, case in CASES.items() if "-" not in name],
    ids=[name for name in CASES if "-" not in name],
)


TRACES = []


@pytest.fixture(autouse=True, scope="module")
def _quick(little_optimization):
    pass


def _run(case):
    """`(losses, gradients of their mean)`, compiled once for all the tests of a case."""

    def mean(student, teacher):
        TRACES.append(0)
        found = case.loss(student, teacher)
        return found.mean(), found

    return jax.jit(jax.value_and_grad(mean, argnums=(0, 1), has_aux=True))


RUN = {id(case): _run(case) for case in CASES.values()}


def _found(case, student, teacher):
    (_, found), grads = RUN[id(case)](student, teacher)
    return found, grads


def _leaves(tree):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]


@every
def test_golden(case):
    found, _ = _found(case, case.student, case.teacher)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(
        found, case.by_hand(case.student, case.teacher), rtol=2e-5, atol=1e-7
    )


@every
def test_gradient_is_the_slope_of_the_golden_and_none_reaches_the_teacher(case):
    _, (grad, teacher_grad) = _found(case, case.student, case.teacher)
    student, structure = jax.tree.flatten(case.student)
    rng = np.random.default_rng(1)
    for _ in range(3):
        ahead = [rng.normal(size=x.shape) for x in student]
        values = []
        for step in (1e-5, -1e-5):
            moved = [
                np.asarray(x, np.float64) + step * d for x, d in zip(student, ahead, strict=True)
            ]
            values.append(case.by_hand(structure.unflatten(moved), case.teacher).mean())
        found = sum((g * d).sum() for g, d in zip(_leaves(grad), ahead, strict=True))
        np.testing.assert_allclose(found, (values[0] - values[1]) / 2e-5, rtol=1e-4, atol=1e-6)
    assert all((leaf == 0).all() for leaf in _leaves(teacher_grad))


@each_loss
def test_is_lowest_and_flat_where_the_two_are_equal(case):
    found, (grad, _) = _found(case, case.student, case.student)
    np.testing.assert_allclose(found, case.lowest, atol=2e-6)
    for leaf in _leaves(grad):
        np.testing.assert_allclose(leaf, 0, atol=2e-6)
    apart, _ = _found(case, case.student, case.teacher)
    assert (np.asarray(apart) > case.lowest + 1e-4).all()


@each_loss
def test_the_order_of_the_batch_does_not_matter(case):
    found, _ = _found(case, case.student, case.teacher)
    order = np.random.default_rng(1).permutation(len(found))
    moved, _ = _found(case, *jax.tree.map(lambda x: x[order], (case.student, case.teacher)))
    np.testing.assert_allclose(moved, found[order], rtol=1e-4, atol=1e-6)


def _spoiled(kind, x):
    x = np.array(x)
    match kind:
        case "zero row":
            x[1] = 0
        case "all zero":
            x[:] = 0
        case "constant rows":
            x[0], x[2] = 3, -3
        case "duplicate rows":
            x[2] = x[0]
        case "all rows equal":
            x[:] = x[:1]
        case "opposite rows":
            x[2] = -x[0]
        case "zero channel":
            x[..., 1] = 0
        case "large":
            x[0], x[1], x[2:] = 30, -30, 20 * x[2:]
        case "very large":
            x *= 1e4
        case "very small":
            x *= 1e-20
    return x


@pytest.mark.parametrize("side", ["student", "teacher", "both"])
@each_loss
def test_degenerate_features_stay_finite(case, side):
    # Of these no direction is known, and no gradient comes of one.
    unknown = ("zero row", "all zero", "duplicate rows", "all rows equal", "zero channel")
    others = ("constant rows", "opposite rows", "large", "very large", "very small")
    for kind in unknown + others:
        student, teacher = (
            jax.tree.map(lambda x, kind=kind: _spoiled(kind, x), x) if side in (name, "both") else x
            for name, x in (("student", case.student), ("teacher", case.teacher))
        )
        found, grads = _found(case, student, teacher)
        assert np.isfinite(found).all(), kind
        assert all(np.isfinite(leaf).all() for leaf in _leaves(grads)), kind
        if kind in unknown:
            assert all(np.abs(leaf).max() < 100 for leaf in _leaves(grads)), kind


@each_loss
def test_low_precision_is_computed_in_float32(case):
    low = jax.tree.map(lambda x: x.astype(jnp.bfloat16), (case.student, case.teacher))
    found = jax.jit(case.loss)(*low)
    assert found.dtype == jnp.float32
    wide = jax.tree.map(lambda x: x.astype(jnp.float32), low)
    expected, _ = _found(case, *wide)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)


@each_loss
def test_second_call_does_not_retrace(case):
    _found(case, case.student, case.teacher)
    traced = len(TRACES)
    _found(case, *jax.tree.map(lambda x: 2 * x + 1, (case.student, case.teacher)))
    assert len(TRACES) == traced
