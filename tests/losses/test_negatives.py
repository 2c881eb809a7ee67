"""Contrastive losses beside NT-Xent: DCL, and MoCo with a queue and without."""

import functools
import math

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

from kdjax.losses import dcl, info_nce, moco_v3, nt_xent
from kdjax.types import BadInput
from tests.losses import laws
from tests.losses.by_hand import dot, unit
from tests.losses.laws import Case


def _dcl_by_hand(arrays, fixed, temperature, sigma=None):
    """The paper's eq. 6, anchor by anchor; DCLW's weights are of the fixed arrays."""
    n = len(arrays[0])
    z = [unit(row) for row in np.concatenate(arrays)]
    weight = [1.0] * n
    if sigma is not None:
        a, b = ([unit(row) for row in x] for x in fixed)
        exp = [math.exp(dot(a[i], b[i]) / sigma) for i in range(n)]
        weight = [2 - e / (math.fsum(exp) / n) for e in exp]

    def loss(i, j):
        others = [k for k in range(2 * n) if k not in (i, j)]
        negatives = math.fsum(math.exp(dot(z[i], z[k]) / temperature) for k in others)
        return math.log(negatives) - weight[i % n] * dot(z[i], z[j]) / temperature

    return np.array([(loss(k, k + n) + loss(k + n, k)) / 2 for k in range(n)])


def _info_nce_by_hand(arrays, _, temperature):
    losses = []
    queue = [unit(row) for row in arrays[2]]
    for query, key in zip(arrays[0], arrays[1], strict=True):
        q = unit(query)
        scores = [math.exp(dot(q, k) / temperature) for k in [unit(key), *queue]]
        losses.append(-math.log(scores[0] / math.fsum(scores)))
    return np.array(losses)


def _moco_v3_by_hand(arrays, _, temperature):
    query, key = ([unit(row) for row in x] for x in arrays)
    losses = []
    for i, q in enumerate(query):
        scores = [math.exp(dot(q, k) / temperature) for k in key]
        losses.append(-2 * temperature * math.log(scores[i] / math.fsum(scores)))
    return np.array(losses)


def _pair(random, rows):
    return random.normal(0, 2, (2, rows, 4))


def _with_queue(random, rows):
    return [*_pair(random, rows), random.normal(size=(7, 4))]


CASES = [
    *(
        Case(
            f"dcl {temperature}",
            functools.partial(dcl, temperature=temperature),
            _pair,
            functools.partial(_dcl_by_hand, temperature=temperature),
            learned=(0, 1),
            batch_axes=(0, 0),
        )
        for temperature in (0.1, 0.5)
    ),
    Case(
        "dclw",
        functools.partial(dcl, temperature=0.2, sigma=0.5),
        _pair,
        functools.partial(_dcl_by_hand, temperature=0.2, sigma=0.5),
        learned=(0, 1),
        batch_axes=(0, 0),
    ),
    Case(
        "info_nce",
        functools.partial(info_nce, temperature=0.2),
        _with_queue,
        functools.partial(_info_nce_by_hand, temperature=0.2),
        learned=(0,),
    ),
    Case(
        "moco_v3",
        functools.partial(moco_v3, temperature=0.2),
        _pair,
        functools.partial(_moco_v3_by_hand, temperature=0.2),
        learned=(0,),
        batch_axes=(0, 0),
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


@pytest.mark.parametrize(**laws.named([CASES[0], CASES[2], CASES[4]]))
def test_eight_devices_give_the_loss_and_the_gradient_of_one(case):
    laws.check_devices(case)


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
