import functools
import math

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

from kdjax.losses import nt_xent
from tests.losses import laws
from tests.losses.laws import Case

RNG = np.random.default_rng(0)
CASE = Case(
    "nt_xent",
    functools.partial(nt_xent, temperature=0.2),
    lambda random, rows: random.normal(size=(2, rows, 5)),
    learned=(0, 1),
    batch_axes=(0, 0),
)
ZA, ZB = jnp.asarray(RNG.normal(0, 2, (2, 6, 4)), jnp.float32)

# The temperature is traced: one compilation for all of them.
_loss = jax.jit(nt_xent)
_grads = jax.jit(
    jax.grad(lambda *args, **kwargs: nt_xent(*args, **kwargs).sum(), argnums=(0, 1)),
)
# Rows far from zero: there the direction of a row is well defined in float32.
_rows = hnp.arrays(np.float32, (6, 4), elements=st.floats(0.125, 4, width=32)).flatmap(
    lambda size: hnp.arrays(np.float32, (6, 4), elements=st.sampled_from([-1.0, 1.0])).map(
        lambda sign: size * sign
    )
)


def _by_hand(za, zb, temperature):
    """Float64: the paper's eq. 1 over the 2N x 2N matrix of cosine similarities, pair by pair."""
    n = len(za)
    z = [row / math.sqrt(sum(v * v for v in row)) for row in np.concatenate([za, zb]).astype(float)]

    def similarity(i, k):
        return sum(a * b for a, b in zip(z[i], z[k], strict=True)) / temperature

    def loss(i, j):
        others = math.fsum(math.exp(similarity(i, k)) for k in range(2 * n) if k != i)
        return -math.log(math.exp(similarity(i, j)) / others)

    return np.array([(loss(k, k + n) + loss(k + n, k)) / 2 for k in range(n)])


def _as_simclr_published(hidden1, hidden2, temperature):
    """Float64 copy of `add_contrastive_loss` in github.com/google-research/simclr, objective.py."""
    hidden1, hidden2 = (
        h / np.linalg.norm(h, axis=1, keepdims=True)
        for h in np.asarray([hidden1, hidden2], np.float64)
    )
    masks = np.eye(len(hidden1))
    logits_aa = hidden1 @ hidden1.T / temperature - masks * 1e9
    logits_bb = hidden2 @ hidden2.T / temperature - masks * 1e9
    logits_ab = hidden1 @ hidden2.T / temperature
    logits_ba = hidden2 @ hidden1.T / temperature
    rows = np.arange(len(hidden1))

    def softmax_cross_entropy(logits):
        logits = logits - logits.max(axis=1, keepdims=True)
        return np.log(np.exp(logits).sum(axis=1)) - logits[rows, rows]

    loss_a = softmax_cross_entropy(np.concatenate([logits_ab, logits_aa], 1)).mean()
    loss_b = softmax_cross_entropy(np.concatenate([logits_ba, logits_bb], 1)).mean()
    return loss_a + loss_b


@pytest.mark.parametrize("temperature", [0.1, 0.5, 2.0])
def test_golden(temperature):
    found = _loss(ZA, ZB, temperature=temperature)
    assert found.shape == (6,)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, _by_hand(ZA, ZB, temperature), rtol=1e-5)


@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_the_published_code_reports_exactly_twice_the_mean(temperature):
    found = 2 * np.mean(_loss(ZA, ZB, temperature=temperature))
    np.testing.assert_allclose(found, _as_simclr_published(ZA, ZB, temperature), rtol=1e-5)


def test_one_pair_has_no_negatives():
    np.testing.assert_allclose(_loss(ZA[:1], ZB[:1], temperature=0.5), 0, atol=1e-6)


def test_rows_that_all_agree_cost_the_logarithm_of_the_others():
    same = jnp.tile(ZA[:1], (6, 1))
    np.testing.assert_allclose(_loss(same, same, temperature=0.5), math.log(11), rtol=1e-6)


@settings(deadline=None, max_examples=25)
@given(
    _rows,
    _rows,
    hnp.arrays(np.float32, (6, 1), elements=st.floats(2.0**-6, 2.0**6, width=32)),
    st.permutations(range(6)),
)
def test_blind_to_scale_and_to_order_and_to_which_view_is_which(za, zb, scale, order):
    found = np.asarray(_loss(za, zb, temperature=0.5))
    assert (found >= 0).all()
    close = {"rtol": 1e-4, "atol": 1e-5}
    np.testing.assert_allclose(_loss(za * scale, zb / scale, temperature=0.5), found, **close)
    np.testing.assert_allclose(_loss(zb, za, temperature=0.5), found, **close)
    order = np.array(order)
    moved = _loss(za[order], zb[order], temperature=0.5)
    np.testing.assert_allclose(moved, found[order], **close)


def test_the_gradient_is_at_right_angles_to_a_row():
    # The same law as blindness to scale, in the gradient: normalisation is differentiated.
    grad, _ = _grads(ZA, ZB, temperature=0.5)
    assert np.abs(grad).max() > 0.01
    np.testing.assert_allclose((grad * ZA).sum(-1), 0, atol=1e-5)


@pytest.mark.parametrize("temperature", [0.01, 0.5])
def test_zero_rows_and_extremes_stay_finite(temperature):
    za, zb = np.array(ZA), np.array(ZB)
    za[0] = zb[0] = 0  # a whole pair
    zb[1] = 0  # one side
    za[2], zb[2] = 1e4, -1e4
    za[3] = zb[3] = za[4]  # duplicates: a negative as near as the positive
    assert np.isfinite(_loss(za, zb, temperature=temperature)).all()
    assert all(np.isfinite(g).all() for g in _grads(za, zb, temperature=temperature))


def test_a_zero_row_is_at_right_angles_to_all():
    za, zb = np.array(ZA[:2]), np.array(ZB[:2])
    za[0] = 0
    # The query's similarities are all zero: one of three is right.
    unit_a, unit_b = (z[1] / np.linalg.norm(z[1]) for z in (za, zb))
    b0 = zb[0] / np.linalg.norm(zb[0])
    backward = math.log(1 + math.exp(b0 @ unit_a) + math.exp(b0 @ unit_b))
    found = _loss(za, zb, temperature=1.0)[0]
    np.testing.assert_allclose(found, (math.log(3) + backward) / 2, rtol=1e-5)


def test_low_precision_is_computed_in_float32():
    za, zb = (jnp.asarray(z, jnp.bfloat16) for z in (ZA, ZB))
    found = _loss(za, zb, temperature=0.1)
    assert found.dtype == jnp.float32
    wide = _loss(za.astype(jnp.float32), zb.astype(jnp.float32), temperature=0.1)
    np.testing.assert_array_equal(found, wide)


def test_eight_devices_give_the_loss_and_the_gradient_of_one():
    laws.check_devices(CASE)


def test_second_call_does_not_retrace():
    laws.check_no_retrace(CASE)
