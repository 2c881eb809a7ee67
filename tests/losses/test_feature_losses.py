"""What holds for every loss between the features of a student and of a teacher."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import losses
from tests.losses import by_hand, laws
from tests.losses.laws import Case

LOG_SCALE, MARGIN = np.array([0.4, -1.3, 1.9], np.float32), np.array([-1.2, -0.3, -2.0], np.float32)
# A loss where the student is the teacher, if it is not zero.
LOWEST = {"vid": np.log(np.logaddexp(0, LOG_SCALE.astype(float)) + 1e-5).mean() / 2}


def _shaped(shape):
    """Arrays of any shape but for the batch, or a tuple of them."""
    if isinstance(shape[0], tuple):
        parts = [_shaped(part) for part in shape]
        return lambda random, rows: tuple(part(random, rows) for part in parts)
    return lambda random, rows: random.normal(0, 1.5, (rows, *shape))


def _case(name, student, teacher, extra=None):
    """Of `losses.NAME` and `by_hand.NAME`; what follows a dash tells cases of one loss apart."""
    formula = name.partition("-")[0]
    loss, derivation = getattr(losses, formula), getattr(by_hand, formula)
    if extra is not None:
        loss = functools.partial(lambda f, s, t: f(s, t, jnp.asarray(extra)), loss)
        derivation = functools.partial(lambda f, s, t: f(s, t, extra), derivation)
    sides = _shaped(student), _shaped(teacher)
    return Case(
        name,
        loss,
        lambda random, rows: [side(random, rows) for side in sides],
        lambda arrays, _: derivation(*arrays),
        batch_axes=(0, 0),
    )


LEVELS = ((5, 5, 6), (4, 4, 5), (1, 1, 2))
CASES = [
    _case("hint_mse", (3, 2, 5), (3, 2, 5)),
    _case("hint_mse-vectors", (5,), (5,)),
    _case("attention_transfer", (4, 3, 2), (4, 3, 5)),
    _case("attention_transfer-student-larger", (5, 5, 2), (3, 3, 3)),
    _case("attention_transfer-teacher-larger", (2, 2, 4), (4, 5, 3)),
    _case("nst", (3, 2, 5), (3, 2, 4)),
    _case("nst-student-larger", (5, 5, 2), (3, 3, 3)),
    _case("nst-teacher-larger", (3, 3, 2), (6, 6, 3)),
    _case("vid", (3, 2, 3), (3, 2, 3), LOG_SCALE),
    _case("vid-vectors", (3,), (3,), LOG_SCALE),
    _case("fsp", ((5, 5, 2), (3, 3, 4)), ((3, 3, 2), (4, 4, 4))),
    _case("ofd", (3, 4, 3), (3, 4, 3), MARGIN),
    _case("review_hcl", LEVELS, LEVELS),
    _case("rkd_distance", (4,), (7,)),
    _case("rkd_angle", (4,), (7,)),
    _case("similarity_preserving", (4,), (7,)),
    _case("similarity_preserving-maps", (2, 2, 3), (7,)),
    _case("correlation_congruence", (4,), (7,)),
    _case("pkt", (4,), (7,)),
]
every = pytest.mark.parametrize(**laws.named(CASES))
each_loss = pytest.mark.parametrize(**laws.named([c for c in CASES if "-" not in c.name]))
relations = pytest.mark.parametrize(**laws.named([c for c in CASES[13:] if "-" not in c.name]))


@every
def test_golden(case):
    laws.check_value(case)


@every
def test_gradient(case):
    laws.check_gradient(case)


@each_loss
def test_is_lowest_and_flat_where_the_two_are_equal(case):
    student, teacher = case.arrays
    found, (grad, _) = case.run([student, student])
    lowest = LOWEST.get(case.name, 0.0)
    np.testing.assert_allclose(found, lowest, atol=2e-6)
    for leaf in jax.tree.leaves(grad):
        np.testing.assert_allclose(leaf, 0, atol=1e-5)
    apart, _ = case.run([student, teacher])
    assert (np.asarray(apart) > lowest + 1e-4).all()


@each_loss
def test_the_order_of_the_batch_does_not_matter(case):
    found, _ = case.run(case.arrays)
    order = np.random.default_rng(1).permutation(6)
    moved, _ = case.run(jax.tree.map(lambda x: x[order], case.arrays))
    np.testing.assert_allclose(moved, found[order], rtol=1e-4, atol=1e-6)


@each_loss
def test_hard_features_stay_finite(case):
    laws.check_finite(case, bound=600)


@each_loss
def test_low_precision_is_computed_in_float32(case):
    laws.check_low_precision(case)


@each_loss
def test_second_call_does_not_retrace(case):
    laws.check_no_retrace(case)


@relations
def test_eight_devices_give_the_loss_and_the_gradient_of_one(case):
    laws.check_devices(case)


def test_arrays_that_are_no_features_are_computed_in_float32_too():
    maps = jnp.ones((2, 3, 2, 3), jnp.bfloat16)
    low = [x.astype(jnp.bfloat16) for x in (LOG_SCALE, MARGIN)]
    assert losses.vid(maps, maps, jnp.asarray(low[0])).dtype == jnp.float32
    assert losses.ofd(maps, maps, jnp.asarray(low[1])).dtype == jnp.float32
