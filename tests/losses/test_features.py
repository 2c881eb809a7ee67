"""What is particular to the losses of one example's features at a time."""

import math

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings

from kdjax import losses
from kdjax.types import BadInput
from tests.losses import by_hand

RNG = np.random.default_rng(0)
_jitted = {
    name: jax.jit(getattr(losses, name))
    for name in ("hint_mse", "attention_transfer", "nst", "vid", "fsp", "ofd", "review_hcl")
}
_maps = hnp.arrays(np.float32, (2, 3, 3, 4), elements=st.floats(-4, 4, width=32))
_scales = st.floats(2.0**-6, 2.0**6, width=32)


def _draw(*shape):
    return jnp.asarray(RNG.normal(0, 1.5, shape), jnp.float32)


@settings(deadline=None, max_examples=15)
@given(_maps, _maps, _scales, st.permutations(range(4)))
def test_attention_is_blind_to_scale_and_to_the_order_of_channels(student, teacher, scale, order):
    loss = _jitted["attention_transfer"]
    student = student + np.float32(0.125) * (np.abs(student) < 0.125)  # no map of nearly zeros
    found = np.asarray(loss(student, teacher))
    # Two vectors of unit length without negative elements are at most sqrt(2) apart.
    assert ((found >= 0) & (found <= 2 / 9 + 1e-6)).all()
    np.testing.assert_allclose(loss(-scale * student[..., order], teacher), found, atol=1e-5)


def test_attention_of_zeros_costs_what_the_teacher_looks_at():
    teacher = _draw(2, 3, 3, 4)
    found = _jitted["attention_transfer"](jnp.zeros((2, 3, 3, 4)), teacher)
    np.testing.assert_allclose(found, 1 / 9, rtol=1e-6)


@settings(deadline=None, max_examples=15)
@given(
    _maps, _maps, hnp.arrays(np.float32, (1, 1, 1, 4), elements=_scales), st.permutations(range(4))
)
def test_nst_is_blind_to_scale_sign_and_order_of_channels(student, teacher, scale, order):
    loss = _jitted["nst"]
    student, teacher = (x + np.float32(0.125) * (np.abs(x) < 0.125) for x in (student, teacher))
    found = np.asarray(loss(student, teacher))
    assert ((found >= -1e-5) & (found <= 2 + 1e-5)).all()
    np.testing.assert_allclose(loss((-scale * student)[..., order], teacher), found, atol=1e-5)


def test_nst_of_selectivities_that_share_nothing():
    # Orthogonal channels, and orthogonal to the teacher's: 1/3 + 1/2 - 0.
    student, teacher = np.zeros((1, 3, 2, 3)), np.zeros((1, 3, 2, 2))
    for channel, place in enumerate([(0, 0), (0, 1), (1, 0)]):
        student[(0, *place, channel)] = 7
    teacher[0, 1, 1, 0] = teacher[0, 2, 0, 1] = -2
    np.testing.assert_allclose(_jitted["nst"](student, teacher), 1 / 3 + 1 / 2, rtol=1e-6)


def test_vid_is_a_gaussian_likelihood_without_its_constant():
    mean, teacher, log_scale = _draw(2, 3, 3, 4), _draw(2, 3, 3, 4), _draw(4)
    deviation = np.sqrt(np.logaddexp(0, np.asarray(log_scale, np.float64)) + 1e-5)
    surprise = -scipy.stats.norm.logpdf(teacher, mean, deviation).mean(axis=(1, 2, 3))
    found = _jitted["vid"](mean, teacher, log_scale)
    np.testing.assert_allclose(found + math.log(2 * math.pi) / 2, surprise, rtol=1e-5)


def test_vid_learns_the_scale():
    mean, teacher = _draw(3, 2, 2, 2), _draw(3, 2, 2, 2)
    slope = jax.jit(jax.grad(lambda scale: losses.vid(mean, teacher, scale).mean()))
    scale = np.array([0.3, -1.2])
    ends = [
        [by_hand.vid(mean, teacher, scale + step * np.eye(2)[c]).mean() for step in (1e-5, -1e-5)]
        for c in range(2)
    ]
    expected = [(up - down) / 2e-5 for up, down in ends]
    np.testing.assert_allclose(slope(jnp.asarray(scale, jnp.float32)), expected, rtol=1e-4)
    # At the variance of the errors it is at its best.
    variance = ((np.asarray(mean, np.float64) - teacher) ** 2).mean(axis=(0, 1, 2))
    best = jnp.asarray(np.log(np.expm1(variance - 1e-5)), jnp.float32)
    np.testing.assert_allclose(slope(best), 0, atol=1e-6)


@pytest.mark.parametrize("log_scale", [-1e4, -200.0, 200.0, 1e4])
def test_vid_with_any_scale_stays_finite(log_scale):
    mean, teacher, scale = _draw(2, 4), _draw(2, 4), jnp.full(4, log_scale)
    var = max(log_scale, 0) + 1e-5
    found = _jitted["vid"](mean, teacher, scale)
    expected = 0.5 * (((mean - teacher) ** 2).mean(-1) / var + math.log(var))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    slope = jax.jit(jax.grad(lambda *args: losses.vid(*args).sum(), argnums=(0, 2)))
    assert all(np.isfinite(grad).all() for grad in slope(mean, teacher, scale))


def test_fsp_is_of_the_second_degree_in_each_pair():
    student, teacher = (
        (_draw(2, 4, 4, 2), _draw(2, 2, 2, 3)),
        (_draw(2, 4, 4, 2), _draw(2, 4, 4, 3)),
    )
    found = _jitted["fsp"](student, teacher)
    moved = _jitted["fsp"]((4 * student[0], student[1] / 2), (teacher[0] / 2, 4 * teacher[1]))
    np.testing.assert_allclose(moved, 4 * found, rtol=1e-5)


def test_fsp_of_one_map_is_its_gram_matrix():
    maps = jnp.zeros((1, 2, 2, 2)).at[0, 0, 0].set(jnp.array([2.0, 3.0]))
    # The mean over four places of the outer product of (2, 3) with itself, against nothing.
    nothing = jnp.zeros((1, 2, 2, 2))
    expected = (np.outer([2, 3], [2, 3]) ** 2 / 16).mean()
    found = _jitted["fsp"]((maps, maps), (nothing, nothing))
    np.testing.assert_allclose(found, [expected], rtol=1e-6)


def test_a_constant_error_costs_its_square_at_every_level():
    teacher = [_draw(2, side, side, 3) for side in (9, 5, 4, 3, 2, 1)]
    errors = (0.5, 1.0, 1.5, 2.0, 2.5, 3.0)
    student = [maps + error for maps, error in zip(teacher, errors, strict=True)]
    found = _jitted["review_hcl"](student, teacher)
    np.testing.assert_allclose(found, sum(error**2 for error in errors), rtol=1e-5)


def test_an_error_that_no_pooling_sees_weighs_by_the_levels_that_are_used():
    # Alternating signs vanish from 2x2 windows on; weights in the order of use.
    checkers = np.where(np.indices((8, 8)).sum(0) % 2, 1.0, -1.0)[None, :, :, None]
    for side, total in [(8, 1 + 1 / 2 + 1 / 4 + 1 / 8), (4, 1 + 1 / 2 + 1 / 4), (2, 1 + 1 / 2)]:
        error = jnp.asarray(checkers[:, :side, :side])
        found = _jitted["review_hcl"]([error], [jnp.zeros_like(error)])
        np.testing.assert_allclose(found, 1 / total, rtol=1e-6)


@pytest.mark.parametrize(("students", "teachers"), [(0, 0), (1, 2), (2, 1)])
def test_levels_without_a_partner_are_named(students, teachers):
    level = jnp.zeros((1, 2, 2, 1))
    with pytest.raises(BadInput, match=f"^student_levels: {students} for {teachers} of"):
        losses.review_hcl([level] * students, [level] * teachers)


def test_ofd_asks_nothing_where_the_relu_removes_both():
    teacher, margin = _draw(2, 3, 3, 4), -np.abs(_draw(4))
    loss = _jitted["ofd"]
    below = np.where(teacher > 0, teacher, np.maximum(teacher, margin) - np.abs(_draw(2, 3, 3, 4)))
    np.testing.assert_array_equal(loss(below, teacher, margin), 0)
    # Above the target it costs, and below it where the teacher is positive.
    above = np.where(teacher > 0, teacher - 2, np.maximum(teacher, margin) + 3)
    positive = (np.asarray(teacher) > 0).sum(axis=(1, 2, 3))
    expected = 4 * positive + 9 * (36 - positive)
    np.testing.assert_allclose(loss(above, teacher, margin), expected, rtol=1e-5)


def test_margins_are_the_mean_of_what_the_relu_removes():
    scale = jnp.array([1.0, 0.5, 2.0, -1.5, 0.3, 1.0])
    bias = jnp.array([0.0, -1.0, 3.0, 1.0, 0.9, -30.0])
    found = jax.jit(losses.ofd_margin)(scale, bias)
    assert found.dtype == jnp.float32
    g = np.abs(np.asarray(scale, np.float64))
    expected = [
        scipy.stats.truncnorm.mean(-np.inf, -b / s, loc=b, scale=s)
        for s, b in zip(g, np.asarray(bias, np.float64), strict=True)
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_margins_where_hardly_anything_is_removed_are_three_deviations():
    # Phi(-3.09) is 0.001.
    found = jax.jit(losses.ofd_margin)(jnp.array([2.0, -2.0, 2.0]), jnp.array([6.2, 6.2, 6.16]))
    np.testing.assert_allclose(found[:2], -6, rtol=1e-6)
    expected = scipy.stats.truncnorm.mean(-np.inf, -3.08, loc=6.16, scale=2)
    np.testing.assert_allclose(found[2], expected, rtol=1e-4)
    assert found[2] > -1


def test_margins_of_any_scale_are_finite_and_never_positive():
    scale = jnp.array([0.0, 0.0, 0.0, 1e-30, 1e-30, 1e4, 1e-3, 1e-3, -1e4])
    bias = jnp.array([0.0, 2.0, -2.0, 1.0, -1.0, 1.0, 1e4, -1e4, -1.0])
    found = np.asarray(jax.jit(losses.ofd_margin)(scale, bias))
    assert np.isfinite(found).all()
    assert (found <= 0).all()
    np.testing.assert_allclose(found[:5], [0, 0, -2, 0, -1], atol=1e-6)
    low = [x.astype(jnp.bfloat16) for x in (scale, bias)]
    assert jax.eval_shape(losses.ofd_margin, *low).dtype == jnp.float32
    slope = jax.jit(jax.grad(lambda *args: losses.ofd_margin(*args).sum(), argnums=(0, 1)))
    slopes = slope(scale, bias)
    assert all((np.asarray(slope) == 0).all() for slope in slopes)
