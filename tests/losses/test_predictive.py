import functools

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

from kdjax.losses import byol, embedding_cosine, masked_patch_mse, negative_cosine
from tests.losses.cases.predictive import CASES

_byol, _negative, _half = map(jax.jit, (byol, negative_cosine, embedding_cosine))
_rows = hnp.arrays(np.float32, (6, 5), elements=st.floats(0.125, 4, width=32)).flatmap(
    lambda size: hnp.arrays(np.float32, (6, 5), elements=st.sampled_from([-1.0, 1.0])).map(
        lambda sign: size * sign
    )
)


@settings(deadline=None, max_examples=10)
@given(_rows, _rows)
def test_the_three_cosines_differ_by_a_scale_and_a_shift(prediction, target):
    prediction, target = jnp.asarray(prediction), jnp.asarray(target)
    distance = _byol(prediction, target)
    assert ((distance >= -1e-6) & (distance <= 4 + 1e-6)).all()
    np.testing.assert_allclose(distance, 2 * _half(prediction, target), atol=1e-6)
    np.testing.assert_allclose(distance, 2 + 2 * _negative(prediction, target), atol=1e-6)


@pytest.mark.parametrize("loss", [byol, negative_cosine])
def test_least_and_flat_where_the_two_point_one_way(loss):
    target = CASES[0].arrays[0]
    found, grad = jax.jit(jax.vmap(jax.value_and_grad(loss)))(3 * target, target)
    np.testing.assert_allclose(found, {byol: 0, negative_cosine: -1}[loss], atol=1e-6)
    np.testing.assert_allclose(grad, 0, atol=1e-6)


@pytest.mark.parametrize(("loss", "expected"), [(_byol, 2), (_negative, 0)])
def test_a_zero_row_is_at_right_angles_to_all(loss, expected):
    a, b = CASES[0].arrays
    np.testing.assert_array_equal(loss(jnp.zeros_like(a), b), expected)
    np.testing.assert_array_equal(loss(a, jnp.zeros_like(b)), expected)


def test_visible_patches_do_not_count():
    prediction, patches, hidden = CASES[2].arrays
    loss = jax.jit(functools.partial(masked_patch_mse, normalize=False))
    elsewhere = jnp.where(hidden[..., None], prediction, 1e6)
    np.testing.assert_array_equal(
        loss(elsewhere, patches, hidden), loss(prediction, patches, hidden)
    )
    np.testing.assert_array_equal(loss(prediction, patches, jnp.zeros_like(hidden)), 0)
    np.testing.assert_array_equal(loss(patches, patches, hidden), 0)


def test_normalized_patches_are_blind_to_brightness_and_contrast():
    prediction, patches, hidden = CASES[3].arrays
    loss = jax.jit(functools.partial(masked_patch_mse, normalize=True))
    found = loss(prediction, patches, hidden)
    np.testing.assert_allclose(loss(prediction, 3 * patches + 5, hidden), found, rtol=1e-4)
    # A patch of one colour has zero for its target.
    flat = jnp.broadcast_to(patches[..., :1], patches.shape)
    np.testing.assert_allclose(
        loss(prediction, flat, hidden),
        masked_patch_mse(prediction, jnp.zeros_like(patches), hidden, normalize=False),
        rtol=1e-3,
    )


def test_leading_axes_are_free():
    prediction, patches, hidden = CASES[2].arrays
    for normalize in (False, True):
        loss = jax.jit(functools.partial(masked_patch_mse, normalize=normalize))
        one = loss(prediction[1], patches[1], hidden[1])
        assert one.shape == ()
        np.testing.assert_allclose(one, loss(prediction, patches, hidden)[1], rtol=1e-6)
    a, b = CASES[0].arrays
    np.testing.assert_allclose(_byol(a[1], b[1]), _byol(a, b)[1], rtol=1e-6)
