import functools

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

from kdjax.losses import byol, embedding_cosine, masked_patch_mse, negative_cosine
from tests.losses import laws
from tests.losses.by_hand import dot, unit
from tests.losses.laws import Case


def _cosines(arrays):
    return np.array([dot(unit(p), unit(t)) for p, t in zip(*arrays, strict=True)])


def _byol_by_hand(arrays, _):
    """The squared distance of the unit rows."""
    pairs = zip(*arrays, strict=True)
    return np.array([dot(d, d) for d in (unit(p) - unit(t) for p, t in pairs)])


def _patches_by_hand(arrays, _, normalize):
    """Patch by patch, pixel by pixel, as the paper says it."""
    losses = []
    for prediction, patches, hidden in zip(*arrays, strict=True):
        errors = []
        for i in np.flatnonzero(hidden):
            target = list(patches[i])
            if normalize:
                mean = sum(target) / len(target)
                variance = sum((v - mean) ** 2 for v in target) / (len(target) - 1)
                target = [(v - mean) / (variance + 1e-6) ** 0.5 for v in target]
            squares = [(p - t) ** 2 for p, t in zip(prediction[i], target, strict=True)]
            errors.append(sum(squares) / len(squares))
        losses.append(sum(errors) / len(errors))
    return np.array(losses)


def _pair(random, rows):
    return random.normal(0, 2, (2, rows, 5))


def _with_patches(random, rows):
    hidden = np.argsort(np.argsort(random.random((rows, 4)))) < 3
    hidden[0] = [True, False, False, False]  # the number need not be the same
    return [*random.normal(0, 2, (2, rows, 4, 3)), hidden]


CASES = [
    Case("byol", byol, _pair, _byol_by_hand, learned=(0,)),
    Case("negative_cosine", negative_cosine, _pair, lambda x, _: -_cosines(x), learned=(0,)),
    *(
        Case(
            f"patches {normalize}",
            functools.partial(masked_patch_mse, normalize=normalize),
            _with_patches,
            functools.partial(_patches_by_hand, normalize=normalize),
            learned=(0,),
        )
        for normalize in (False, True)
    ),
]
every = pytest.mark.parametrize(**laws.named(CASES))


@every
def test_golden(case):
    laws.check_value(case)


@every
def test_gradient(case):
    laws.check_gradient(case)


@every
def test_hard_rows_stay_finite(case):
    laws.check_finite(case)


@every
def test_low_precision_is_computed_in_float32(case):
    laws.check_low_precision(case)


@every
def test_second_call_does_not_retrace(case):
    laws.check_no_retrace(case)


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
