import math

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

from kdjax.losses import cross_entropy

RNG = np.random.default_rng(0)
LOGITS = jnp.asarray(RNG.normal(0, 3, (6, 5)), jnp.float32)
LABEL = jnp.array([0, 4, 2, 2, 1, 3])

_loss = jax.jit(cross_entropy, static_argnames="label_smoothing")
_grad = jax.jit(
    jax.grad(lambda *args, **kwargs: cross_entropy(*args, **kwargs).sum()),
    static_argnames="label_smoothing",
)


def _by_hand(logits, label, smoothing):
    """Float64, one class at a time, from the definition of the softmax."""
    losses = []
    for row, right in zip(np.asarray(logits, np.float64), label, strict=True):
        total = math.fsum(math.exp(value - row.max()) for value in row)
        loss = 0.0
        for c, value in enumerate(row):
            wanted = smoothing / len(row) + (1 - smoothing) * (c == right)
            loss -= wanted * math.log(math.exp(value - row.max()) / total)
        losses.append(loss)
    return np.array(losses)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
def test_golden(smoothing):
    found = _loss(LOGITS, LABEL, label_smoothing=smoothing)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, _by_hand(LOGITS, LABEL, smoothing), rtol=1e-5)


def test_uniform_logits_cost_the_logarithm_of_the_classes():
    np.testing.assert_allclose(_loss(jnp.zeros((2, 8)), jnp.array([0, 7])), math.log(8))


def test_leading_axes_are_free():
    flat = _loss(LOGITS, LABEL)
    one = _loss(LOGITS[0], jnp.int32(0))
    cube = _loss(LOGITS.reshape(3, 2, 5), LABEL.reshape(3, 2))
    assert one.shape == ()
    np.testing.assert_allclose(one, flat[0], rtol=1e-6)
    np.testing.assert_allclose(cube.ravel(), flat, rtol=1e-6)


@settings(deadline=None, max_examples=30)
@given(
    hnp.arrays(np.float32, (6, 5), elements=st.floats(-50, 50, width=32)),
    st.floats(-100, 100, width=32),
    st.sampled_from([0.0, 0.25]),
)
def test_never_negative_and_blind_to_a_shift(logits, shift, smoothing):
    found = _loss(logits, LABEL, label_smoothing=smoothing)
    assert (np.asarray(found) >= 0).all()
    moved = _loss(logits + np.float32(shift), LABEL, label_smoothing=smoothing)
    np.testing.assert_allclose(found, moved, rtol=1e-4, atol=1e-4)


def test_smoothing_mixes_with_the_mean_over_the_classes():
    # (1 - s) CE(label) + s mean_c CE(c), whatever the logits.
    hard = _loss(LOGITS, LABEL)
    each = [_loss(LOGITS, jnp.full(6, c)) for c in range(5)]
    mixed = 0.7 * hard + 0.3 * np.mean(each, axis=0)
    np.testing.assert_allclose(_loss(LOGITS, LABEL, label_smoothing=0.3), mixed, rtol=1e-5)


def test_smoothing_has_its_optimum_at_the_smoothed_target():
    wanted = np.full((1, 5), 0.3 / 5)
    wanted[0, 2] += 0.7
    logits, label = jnp.log(wanted), jnp.array([2])
    grad = _grad(logits, label, label_smoothing=0.3)
    np.testing.assert_allclose(grad, 0, atol=1e-6)
    entropy = -(wanted * np.log(wanted)).sum()
    found = _loss(logits, label, label_smoothing=0.3)
    np.testing.assert_allclose(found, entropy, rtol=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_an_unlabelled_row_costs_nothing_and_sends_no_gradient(smoothing):
    label = LABEL.at[jnp.array([1, 4])].set(-1)

    found = _loss(LOGITS, label, label_smoothing=smoothing)
    grad = np.asarray(_grad(LOGITS, label, label_smoothing=smoothing))
    hidden = np.asarray(label < 0)
    assert (np.asarray(found)[hidden] == 0).all()
    assert (grad[hidden] == 0).all()
    expected = _loss(LOGITS, LABEL, label_smoothing=smoothing)
    np.testing.assert_array_equal(found[~hidden], expected[~hidden])
    assert (np.abs(grad[~hidden]).max(axis=-1) > 0).all()


def test_gradient_is_softmax_minus_target():
    grad = _grad(LOGITS, LABEL)
    exp = np.exp(np.asarray(LOGITS, np.float64))
    expected = exp / exp.sum(-1, keepdims=True) - np.eye(5)[LABEL]
    np.testing.assert_allclose(grad, expected, atol=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_extreme_logits_stay_finite(smoothing):
    logits = jnp.array([[1e4, -1e4, 0.0]] * 2)
    label = jnp.array([0, 1])
    assert np.isfinite(_grad(logits, label, label_smoothing=smoothing)).all()
    np.testing.assert_allclose(
        _loss(logits, label, label_smoothing=smoothing),
        # log softmax is 0, -2e4, -1e4 to the last bit of float32
        (1 - smoothing) * np.array([0, 2e4]) + smoothing / 3 * 3e4,
    )


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_low_precision_is_computed_in_float32(dtype):
    low = jnp.asarray(LOGITS, dtype)
    found = _loss(low, LABEL, label_smoothing=0.1)
    assert found.dtype == jnp.float32
    expected = _loss(low.astype(jnp.float32), LABEL, label_smoothing=0.1)
    np.testing.assert_array_equal(found, expected)


def test_second_call_does_not_retrace():
    traces = []

    @jax.jit
    def loss(logits, label):
        traces.append(0)
        return cross_entropy(logits, label, label_smoothing=0.1)

    loss(LOGITS, LABEL)
    loss(LOGITS + 1, LABEL[::-1])
    assert len(traces) == 1
