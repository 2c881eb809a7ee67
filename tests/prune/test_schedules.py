import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

from kdjax.prune.schedules import cosine_fraction, cubic, linear, one_shot, periodic
from kdjax.types import BadInput


@pytest.mark.parametrize(
    ("sparsity", "begin", "end"), [(0.9, 0, 10), (0.5, 3, 7), (0.8, 100, 1100), (0.25, 0, 1)]
)
def test_golden(sparsity, begin, end):
    schedule = jax.jit(jax.vmap(cubic(sparsity, begin_step=begin, end_step=end)))
    steps = np.arange(end + 20, dtype=np.int32)
    # Zhu and Gupta, eq. 1, with s_i = 0: s_f + (s_i - s_f) (1 - (t - t_0) / (n dt))^3.
    part = (steps.astype(float) - begin) / (end - begin)
    expected = sparsity + (0 - sparsity) * (1 - part) ** 3
    expected[: begin + 1], expected[end:] = 0, sparsity
    found = np.asarray(schedule(steps))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert (np.diff(found) >= 0).all()
    # Exact at both ends: the last masks have the count of the target.
    assert found[begin] == 0
    assert (found[end:] == np.float32(sparsity)).all()


def test_most_of_it_goes_early():
    schedule = cubic(0.8, begin_step=0, end_step=100)
    np.testing.assert_allclose(schedule(50), 0.8 * 7 / 8, rtol=1e-6)


@pytest.mark.parametrize(("sparsity", "begin", "end"), [(0.9, 0, 10), (0.5, 3, 7), (0.25, 0, 1)])
def test_linear_golden(sparsity, begin, end):
    steps = np.arange(end + 5, dtype=np.int32)
    found = np.asarray(linear(sparsity, begin_step=begin, end_step=end)(jnp.asarray(steps)))
    expected = sparsity * np.clip((steps - begin) / (end - begin), 0, 1)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert found[begin] == 0
    assert (found[end:] == np.float32(sparsity)).all()


@pytest.mark.parametrize("at", [0, 1, 7])
def test_one_shot_golden(at):
    steps = jnp.arange(10)
    found = np.asarray(jax.jit(one_shot(0.9, at_step=at))(steps))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, np.where(np.arange(10) >= at, np.float32(0.9), 0))
    assert one_shot(0.9, at_step=at)(at) == np.float32(0.9)


@pytest.mark.parametrize(
    ("sparsity", "begin", "end", "rounds"),
    [(0.9, 0, 12, 3), (0.5, 2, 12, 4), (0.99, 5, 8, 3), (0.8, 0, 7, 1), (0.0, 1, 9, 2)],
)
def test_periodic_golden(sparsity, begin, end, rounds):
    steps = np.arange(end + 5)
    found = np.asarray(
        jax.jit(periodic(sparsity, begin_step=begin, end_step=end, rounds=rounds))(
            jnp.asarray(steps)
        )
    )
    # k cuts are behind a step when begin + k (end - begin) / rounds <= step.
    done = np.clip((steps - begin) * rounds // (end - begin), 0, rounds)
    np.testing.assert_allclose(found, 1 - (1 - sparsity) ** (done / rounds), rtol=1e-6)
    assert found[begin] == 0
    assert (found[end:] == np.float32(sparsity)).all()


def test_periodic_cuts_what_is_left_by_a_constant_factor():
    schedule = periodic(1 - 0.8**5, begin_step=100, end_step=600, rounds=5)
    density = 1 - np.array([float(schedule(step)) for step in (100, 200, 300, 400, 500, 600)])
    np.testing.assert_allclose(density[1:] / density[:-1], 0.8, rtol=1e-6)
    assert schedule(199) == 0
    assert schedule(599) == schedule(500)


@pytest.mark.parametrize(("fraction", "end"), [(0.3, 10), (0.5, 1), (0.0, 3)])
def test_cosine_fraction_golden(fraction, end):
    steps = np.arange(end + 5)
    found = np.asarray(jax.jit(cosine_fraction(fraction, end_step=end))(jnp.asarray(steps)))
    # Evci et al.: alpha / 2 (1 + cos(t pi / T_end)), and no update after T_end.
    expected = fraction / 2 * (1 + np.cos(np.minimum(steps, end) * np.pi / end))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(found[0], np.float32(fraction))
    np.testing.assert_array_equal(found[end:], 0)


_SCHEDULES = {
    "one_shot": lambda s: one_shot(s, at_step=4),
    "linear": lambda s: linear(s, begin_step=2, end_step=9),
    "cubic": lambda s: cubic(s, begin_step=2, end_step=9),
    "periodic": lambda s: periodic(s, begin_step=2, end_step=9, rounds=3),
    "cosine_fraction": lambda s: cosine_fraction(s, end_step=9),
}


@pytest.mark.parametrize("name", _SCHEDULES)
def test_one_trace_serves_every_step(name):
    schedule, traces = _SCHEDULES[name](0.7), []

    @jax.jit
    def at(step):
        traces.append(0)
        return schedule(step)

    found = [at(jnp.int32(step)) for step in range(12)]
    assert len(traces) == 1
    assert all(value.shape == () and value.dtype == jnp.float32 for value in found)
    eager = [schedule(step) for step in range(12)]
    np.testing.assert_allclose(found, eager, rtol=1e-6, atol=1e-7)
    sign = -1 if name == "cosine_fraction" else 1
    assert (sign * np.diff(found) >= 0).all()
    assert max(found) == np.float32(0.7)


@pytest.mark.parametrize("name", _SCHEDULES)
@pytest.mark.parametrize("sparsity", [-0.1, 1.0, 1.5, float("nan")])
def test_a_target_out_of_range_is_refused(name, sparsity):
    field = "fraction" if name == "cosine_fraction" else "sparsity"
    with pytest.raises(BadInput, match=rf"^prune\.{field}: .* is not in \[0, 1\)$"):
        _SCHEDULES[name](sparsity)


_BETWEEN = {
    "linear": linear,
    "cubic": cubic,
    "periodic": lambda s, **steps: periodic(s, rounds=1, **steps),
}


@pytest.mark.parametrize("name", _BETWEEN)
@settings(max_examples=30)
@given(st.integers(-5, 5), st.integers(-5, 5))
def test_steps_out_of_order_are_refused(name, begin, end):
    if 0 <= begin < end:
        _BETWEEN[name](0.5, begin_step=begin, end_step=end)
        return
    with pytest.raises(BadInput, match=rf"^prune\.begin_step, end_step: {begin}, {end} are not"):
        _BETWEEN[name](0.5, begin_step=begin, end_step=end)


@pytest.mark.parametrize("rounds", [0, -1, 8])
def test_rounds_that_do_not_fit_are_refused(rounds):
    with pytest.raises(BadInput, match=rf"^prune\.rounds: {rounds} is not from 1 to the 7 steps"):
        periodic(0.5, begin_step=2, end_step=9, rounds=rounds)


def test_steps_below_the_first_are_refused():
    with pytest.raises(BadInput, match=r"^prune\.at_step: -1 is not at least 0$"):
        one_shot(0.5, at_step=-1)
    with pytest.raises(BadInput, match=r"^prune\.end_step: 0 is not at least 1$"):
        cosine_fraction(0.5, end_step=0)
