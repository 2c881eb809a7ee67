"""What holds for every loss between the features of a student and of a teacher."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import losses
from tests.losses import laws
from tests.losses.cases.features import CASES, LOG_SCALE, MARGIN

# A loss where the student is the teacher, if it is not zero.
LOWEST = {"vid": np.log(np.logaddexp(0, LOG_SCALE.astype(float)) + 1e-5).mean() / 2}
each_loss = pytest.mark.parametrize(**laws.named([case for case in CASES if not case.variant]))


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


def test_arrays_that_are_no_features_are_computed_in_float32_too():
    maps = jnp.ones((2, 3, 2, 3), jnp.bfloat16)
    low = [x.astype(jnp.bfloat16) for x in (LOG_SCALE, MARGIN)]
    assert losses.vid(maps, maps, jnp.asarray(low[0])).dtype == jnp.float32
    assert losses.ofd(maps, maps, jnp.asarray(low[1])).dtype == jnp.float32
