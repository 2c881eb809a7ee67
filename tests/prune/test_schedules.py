import hypothesis.strategies as st
import jax
import numpy as np
import pytest
from hypothesis import given

from kdjax.prune import cubic
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


@pytest.mark.parametrize("sparsity", [-0.1, 1.0, 1.5, float("nan")])
def test_a_target_out_of_range_is_refused(sparsity):
    with pytest.raises(BadInput, match=r"prune\.sparsity: .* is not in \[0, 1\)"):
        cubic(sparsity, begin_step=0, end_step=10)


@given(st.integers(-5, 5), st.integers(-5, 5))
def test_steps_out_of_order_are_refused(begin, end):
    if 0 <= begin < end:
        cubic(0.5, begin_step=begin, end_step=end)
        return
    with pytest.raises(BadInput, match=rf"prune\.begin_step, end_step: {begin}, {end} are not"):
        cubic(0.5, begin_step=begin, end_step=end)
