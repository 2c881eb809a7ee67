"""Contrastive losses beside NT-Xent: DCL, and MoCo with a queue and without."""

import math

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

from kdjax.losses import dcl, info_nce, moco_v3, nt_xent
from kdjax.types import BadInput
from tests.losses.by_hand import dot, unit
from tests.losses.cases.negatives import CASES


@settings(deadline=None, max_examples=10)
@given(st.permutations(range(6)), st.floats(2.0**-6, 2.0**6), st.sampled_from(CASES))
def test_blind_to_scale_and_to_order(order, scale, case):
    found, _ = case.run(case.arrays)
    order = np.array(order)
    a, b, *queue = case.arrays
    moved, _ = case.run([a[order] * scale, b[order] / scale, *(x[::-1] for x in queue)])
    np.testing.assert_allclose(moved, found[order], rtol=1e-4, atol=1e-5)


ZA, ZB = jnp.asarray(np.random.default_rng(4).normal(size=(2, 6, 4)), jnp.float32)
_dcl = jax.jit(dcl, static_argnames="sigma")
_info_nce = jax.jit(info_nce)
_moco_v3 = jax.jit(moco_v3)


def test_dcl_is_nt_xent_without_the_positive_in_the_denominator():
    # One direction of NT-Xent is log(1 + exp(DCL)); of a view with itself both are the same.
    decoupled = _dcl(ZA, ZA, temperature=0.5)
    np.testing.assert_allclose(
        jax.jit(nt_xent)(ZA, ZA, temperature=0.5), jax.nn.softplus(decoupled), rtol=1e-5
    )


def test_weights_of_dcl_average_to_one_and_fall_with_agreement():
    plain, weighted = (_dcl(ZA, ZB, temperature=1.0, sigma=s) for s in (math.inf, 0.5))
    cosine = np.array([dot(unit(a), unit(b)) for a, b in zip(ZA, ZB, strict=True)])
    weight = 1 + np.asarray(plain - weighted) / cosine
    np.testing.assert_allclose(weight.mean(), 1, rtol=1e-4)
    assert (np.diff(weight[np.argsort(cosine)]) < 0).all()
    # Pairs that agree all alike have nothing to weigh.
    np.testing.assert_allclose(
        _dcl(ZA, 2 * ZA, temperature=1.0, sigma=0.5), _dcl(ZA, 2 * ZA, temperature=1.0), atol=1e-5
    )


def test_one_pair_is_refused_by_dcl():
    with pytest.raises(BadInput, match=r"^batch: "):
        dcl(ZA[:1], ZB[:1], temperature=0.5)


def test_a_queue_of_the_other_keys_is_moco_v3():
    za, zb = np.asarray(ZA), np.asarray(ZB)
    found = [
        _info_nce(za[i : i + 1], zb[i : i + 1], np.delete(zb, i, axis=0), temperature=0.3)[0]
        for i in range(6)
    ]
    np.testing.assert_allclose(
        _moco_v3(ZA, ZB, temperature=0.3), 0.6 * np.array(found), rtol=1e-5, atol=1e-6
    )


def test_a_zero_query_is_as_near_to_all():
    zero = jnp.zeros((2, 4))
    found = _info_nce(zero, ZB[:2], ZA, temperature=0.2)
    np.testing.assert_allclose(found, math.log(7), rtol=1e-6)
    np.testing.assert_allclose(
        _moco_v3(zero, ZB[:2], temperature=0.2), 0.4 * math.log(2), rtol=1e-6
    )


def test_more_negatives_cost_more():
    short, long = (_info_nce(ZA, ZB, ZA[:n], temperature=0.2) for n in (2, 5))
    assert (np.asarray(long) > np.asarray(short)).all()


@pytest.mark.parametrize("loss", [_dcl, _moco_v3])
def test_cold_temperatures_do_not_overflow(loss):
    # Cosines of 1 over 0.005 are logits of 200, beyond float32 after exp.
    grad = jax.jit(jax.grad(lambda a, b: loss(a, b, temperature=0.005).sum()))(ZA, ZB)
    assert np.isfinite(loss(ZA, ZB, temperature=0.005)).all()
    assert np.isfinite(grad).all()
