import math

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

from kdjax.losses import cross_entropy, tf_kd
from kdjax.types import BadInput

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


_virtual = jax.jit(tf_kd, static_argnames="correct_probability")
_virtual_grad = jax.jit(
    jax.grad(lambda *args, **kwargs: tf_kd(*args, **kwargs).sum()),
    static_argnames="correct_probability",
)


def _virtual_teacher(label, classes, correct_probability, temperature):
    """Float64: the paper's eq. 8, softened."""
    share = (1 - correct_probability) / (classes - 1)
    raised = [
        (correct_probability if c == label else share) ** (1 / temperature) for c in range(classes)
    ]
    return [value / math.fsum(raised) for value in raised]


def _virtual_pairs(correct_probability, temperature):
    """Float64, for each row: the student's softened softmax and the virtual teacher's."""
    for row, label in zip(np.asarray(LOGITS, np.float64), LABEL.tolist(), strict=True):
        exp = [math.exp((value - row.max()) / temperature) for value in row]
        q = [value / math.fsum(exp) for value in exp]
        yield q, _virtual_teacher(label, 5, correct_probability, temperature)


@pytest.mark.parametrize("temperature", [1.0, 4.0, 20.0])
@pytest.mark.parametrize("correct_probability", [0.9, 0.99])
def test_a_virtual_teacher_is_golden_in_value_and_gradient(correct_probability, temperature):
    numbers = {"correct_probability": correct_probability, "temperature": temperature}
    found = _virtual(LOGITS, LABEL, **numbers)
    assert found.dtype == jnp.float32
    pairs = list(_virtual_pairs(**numbers))
    kl = [math.fsum(a * math.log(a / b) for a, b in zip(p, q, strict=True)) for q, p in pairs]
    np.testing.assert_allclose(found, temperature**2 * np.array(kl), rtol=1e-4, atol=1e-4)
    expected = [temperature * (np.array(q) - p) for q, p in pairs]
    grad = _virtual_grad(LOGITS, LABEL, **numbers)
    np.testing.assert_allclose(grad, expected, rtol=1e-4, atol=1e-5)


def test_a_virtual_teacher_is_as_soft_as_the_papers_figure():
    # Ten classes at a temperature of 20: a little above the others, which are just below a tenth.
    # The softmax of the probabilities over 20 could never give the label more than 0.105.
    for correct_probability, at_label in [(0.9, 0.122), (0.99, 0.135), (0.999, 0.149)]:
        p = _virtual_teacher(5, 10, correct_probability, 20.0)
        logits = jnp.asarray(20 * np.log([p]), jnp.float32)
        numbers = {"correct_probability": correct_probability, "temperature": 20.0}
        np.testing.assert_allclose(p[5], at_label, atol=1e-3)
        np.testing.assert_allclose(_virtual(logits, jnp.array([5]), **numbers), 0, atol=1e-3)


def _entropy(p):
    return -math.fsum(value * math.log(value) for value in p)


def test_a_virtual_teacher_that_is_not_softened_is_label_smoothing():
    found = _virtual(LOGITS, LABEL, correct_probability=0.92, temperature=1.0)
    smoothed = _loss(LOGITS, LABEL, label_smoothing=0.1)  # 0.9 + 0.1 / 5 at the label
    entropy = _entropy([0.92, *[0.02] * 4])
    np.testing.assert_allclose(found, smoothed - entropy, rtol=1e-4, atol=1e-5)


def test_the_published_virtual_teacher_is_much_label_smoothing():
    # The authors' code: F.softmax(teacher / T) of probabilities, F.log_softmax(outputs) at T = 1.
    exp = np.exp(np.array([0.99, *[0.0025] * 4]) / 20)
    p = exp / exp.sum()
    published = []
    for row, label in zip(np.asarray(LOGITS, np.float64), LABEL.tolist(), strict=True):
        target = np.where(np.arange(5) == label, p[0], p[1])
        log_q = row - row.max() - math.log(math.fsum(np.exp(row - row.max())))
        published.append((target * (np.log(target) - log_q)).sum())
    smoothed = _loss(LOGITS, LABEL, label_smoothing=float(5 * p[1]))
    np.testing.assert_allclose(smoothed - _entropy(p), published, rtol=1e-4)


def test_a_virtual_teacher_has_nothing_to_say_without_a_label():
    label = LABEL.at[1].set(-1)
    numbers = {"correct_probability": 0.99, "temperature": 4.0}
    found, grad = _virtual(LOGITS, label, **numbers), _virtual_grad(LOGITS, label, **numbers)
    is_labelled = np.asarray(label) >= 0
    np.testing.assert_array_equal(np.asarray(found) > 0, is_labelled)
    np.testing.assert_array_equal(np.abs(grad).max(-1) > 0, is_labelled)


@pytest.mark.parametrize("correct_probability", [0.0, 1.0, -0.5, math.nan])
def test_a_virtual_teacher_that_cannot_be_is_named(correct_probability):
    with pytest.raises(BadInput, match=r"^correct_probability: "):
        tf_kd(LOGITS, LABEL, correct_probability=correct_probability, temperature=20.0)
