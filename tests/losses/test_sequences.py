"""What holds for every loss between the positions of two transformers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import losses
from tests.losses import laws
from tests.losses.cases.sequences import CASES

MASKED = [case for case in CASES if case.name != "pkd"]


@pytest.mark.parametrize(**laws.named(MASKED))
@pytest.mark.parametrize("filling", [0.0, 1e4])
def test_padding_changes_no_loss_and_no_gradient(case, filling):
    """Whatever is in it, and however much of it there is."""
    *arrays, where = case.arrays
    wide = [
        np.pad(np.asarray(x), [(0, 0), (0, 5), *[(0, 0)] * (x.ndim - 2)], constant_values=filling)
        for x in arrays
    ]
    wide_where = np.pad(np.asarray(where), ((0, 0), (0, 5)))
    for x in wide:
        x[~wide_where] = filling
    found, grads = case.run([*arrays, where])
    again, others = case.run([*(jnp.asarray(x) for x in wide), jnp.asarray(wide_where)])
    np.testing.assert_allclose(again, found, rtol=1e-6, atol=1e-6)
    for index in case.learned:
        own = np.asarray(grads[index])
        np.testing.assert_allclose(np.asarray(others[index])[:, :4], own, rtol=1e-5, atol=1e-6)
        assert (np.asarray(others[index])[:, 4:] == 0).all()


@pytest.mark.parametrize(**laws.named(MASKED))
def test_no_mask_is_a_mask_of_all_positions(case):
    *arrays, where = case.arrays
    whole, _ = case.run([*arrays, jnp.ones_like(where)])
    np.testing.assert_allclose(jax.jit(case.loss)(*arrays), whole, rtol=1e-6)
    cut, _ = case.run([*arrays, where])
    assert np.abs(cut - whole)[np.asarray(~where.all(-1))].min() > 1e-3


@pytest.mark.parametrize(**laws.named(CASES))
def test_is_zero_and_flat_where_the_two_are_equal(case):
    student = case.arrays[: len(case.learned)]
    found, grads = case.run([*student, *student, *case.arrays[2 * len(student) :]])
    np.testing.assert_allclose(found, 0, atol=1e-6)
    for index in case.learned:
        np.testing.assert_allclose(grads[index], 0, atol=1e-5)


def test_without_padding_it_is_the_hint():
    student, teacher = CASES[0].arrays[:2]
    np.testing.assert_allclose(
        losses.hidden_mse(student, teacher), losses.hint_mse(student, teacher), rtol=1e-6
    )
