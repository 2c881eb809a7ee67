import math

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

from kdjax.losses import kd_kl, kd_kl_top_k, top_k_signal
from kdjax.types import BadInput
from tests.losses.by_hand import softmax

RNG = np.random.default_rng(0)
CLASSES = 7
STUDENT, TEACHER = jnp.asarray(RNG.normal(0, 3, (2, 6, CLASSES)), jnp.float32)

_logits = hnp.arrays(np.float32, (6, CLASSES), elements=st.floats(-30, 30, width=32))
_temperatures = st.sampled_from([0.5, 1.0, 4.0])
_ks = st.integers(1, CLASSES)

_signal = jax.jit(top_k_signal, static_argnames=("k", "temperatures"))
# The temperature is traced in these: one compilation for all of them.
_full = jax.jit(kd_kl)
_loss = jax.jit(kd_kl_top_k)
_grads = jax.jit(
    jax.grad(lambda *args, **kwargs: kd_kl_top_k(*args, **kwargs).sum(), argnums=(0, 2, 3))
)


def _kept(teacher, k, temperature):
    indices, log_probs, log_tail = _signal(jnp.asarray(teacher), k=k, temperatures=(temperature,))
    return indices, log_probs, log_tail[..., 0]


def _top_k(student, teacher, k, temperature):
    return _loss(jnp.asarray(student), *_kept(teacher, k, temperature), temperature=temperature)


def _order(row):
    """Classes from the likeliest down; the lower one first where two are equal."""
    return sorted(range(len(row)), key=lambda c: (-row[c], c))


def _pairs(student, teacher, k, temperature):
    """Float64, for each row: its kept classes, and both sides' whole softened softmaxes."""
    for s, t in zip(np.asarray(student, float), np.asarray(teacher, float), strict=True):
        yield _order(t)[:k], softmax(s, temperature), softmax(t, temperature)


def _buckets(row, kept):
    others = [value for c, value in enumerate(row) if c not in kept]
    return [row[c] for c in kept] + ([math.fsum(others)] if others else [])


def _kl(p, q):
    return math.fsum(a * math.log(a / b) for a, b in zip(p, q, strict=True) if a > 0)


def _by_hand(student, teacher, k, temperature):
    """Float64: `T^2 sum p log(p / q)` over the kept classes and one bucket."""
    return np.array(
        [
            temperature**2 * _kl(_buckets(p, kept), _buckets(q, kept))
            for kept, q, p in _pairs(student, teacher, k, temperature)
        ]
    )


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
@pytest.mark.parametrize("k", [1, 3, 6, 7])
def test_golden(k, temperature):
    kept = _kept(TEACHER, k, temperature)
    found = jax.jit(kd_kl_top_k, static_argnames="temperature")(
        STUDENT, *kept, temperature=temperature
    )
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(
        found, _by_hand(STUDENT, TEACHER, k, temperature), rtol=1e-4, atol=1e-5
    )
    traced = _loss(STUDENT, *kept, temperature=jnp.float32(temperature))
    np.testing.assert_allclose(traced, found, rtol=1e-5, atol=1e-6)


@settings(deadline=None, max_examples=30)
@given(_logits, _logits, _temperatures)
def test_with_every_class_kept_it_is_kd_kl(student, teacher, temperature):
    expected = _full(student, teacher, temperature=temperature)
    indices, log_probs, log_tail = _kept(teacher, CLASSES, temperature)
    assert (np.asarray(log_tail) == -np.inf).all()
    found = _loss(student, indices, log_probs, log_tail, temperature=temperature)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    # And nothing reads the tail.
    unread = _loss(student, indices, log_probs, np.full(6, np.nan, "f"), temperature=temperature)
    np.testing.assert_array_equal(unread, found)


@settings(deadline=None, max_examples=30)
@given(_logits, _logits, _temperatures)
def test_a_lower_bound_that_grows_with_k(student, teacher, temperature):
    # The data-processing inequality: each k merges outcomes of the next.
    full = np.asarray(_full(student, teacher, temperature=temperature))
    rising = [_top_k(student, teacher, k, temperature) for k in range(1, CLASSES + 1)]
    rounding = 1e-4 + 1e-5 * full
    assert (rising[0] >= -rounding).all()
    for fewer, more in zip(rising, [*rising[1:], full], strict=True):
        assert (fewer <= more + rounding).all()


@pytest.mark.parametrize("k", [1, 3, 5])
def test_what_it_leaves_out_is_the_divergence_within_the_tail(k):
    # The chain rule: kd_kl = top k + T^2 p_tail KL within the bucket. And that is not little.
    within = []
    for kept, q, p in _pairs(STUDENT, TEACHER, k, 2.0):
        others = [c for c in range(CLASSES) if c not in kept]
        p_tail, q_tail = (math.fsum(x[c] for c in others) for x in (p, q))
        within.append(
            p_tail * _kl([p[c] / p_tail for c in others], [q[c] / q_tail for c in others])
        )
    left_out = _full(STUDENT, TEACHER, temperature=2.0) - _top_k(STUDENT, TEACHER, k, 2.0)
    np.testing.assert_allclose(left_out, 4 * np.array(within), rtol=1e-3, atol=1e-4)
    assert np.max(left_out) > 0.01


@settings(deadline=None, max_examples=20)
@given(_logits, _ks, _temperatures)
def test_is_zero_and_flat_where_the_two_are_equal(logits, k, temperature):
    kept = _kept(logits, k, temperature)
    scale = max(1, temperature) ** 2
    found = _loss(logits, *kept, temperature=temperature)
    np.testing.assert_allclose(found, 0, atol=1e-5 * scale)
    grad, *_ = _grads(logits, *kept, temperature=temperature)
    np.testing.assert_allclose(grad, 0, atol=1e-5 * scale)


def test_renormalising_over_the_top_k_would_be_noticed():
    # A student that moves mass onto the classes that were not kept, and changes nothing else.
    k, temperature = 3, 2.0
    indices, log_probs, log_tail = _kept(TEACHER, k, temperature)
    raised = TEACHER + 5
    student = jnp.put_along_axis(
        raised, indices, jnp.take_along_axis(TEACHER, indices, -1), axis=-1, inplace=False
    )
    found = _loss(student, indices, log_probs, log_tail, temperature=temperature)
    np.testing.assert_allclose(found, _by_hand(student, TEACHER, k, temperature), rtol=1e-4)

    renormalised, one_sided_at_the_teacher = [], []
    for kept, q, p in _pairs(student, TEACHER, k, temperature):
        p_top, q_top = ([x[c] / math.fsum(x[c] for c in kept) for c in kept] for x in (p, q))
        renormalised.append(_kl(p_top, q_top))
        one_sided_at_the_teacher.append(_kl(p_top, [p[c] for c in kept]))
    # Renormalised on both sides it sees nothing; on the teacher's side alone, it asks a student
    # that equals the teacher to change.
    np.testing.assert_allclose(renormalised, 0, atol=1e-6)
    assert (found > 0.1).all()
    assert max(one_sided_at_the_teacher) > 0.1
    np.testing.assert_allclose(_top_k(TEACHER, TEACHER, k, temperature), 0, atol=1e-5)


@settings(deadline=None, max_examples=30)
@given(_logits, _logits, _ks, st.floats(-30, 30, width=32), st.permutations(range(CLASSES)))
def test_is_blind_to_a_shift_and_to_the_order_of_the_kept(student, teacher, k, shift, order):
    indices, log_probs, log_tail = _kept(teacher, k, 2.0)
    found = _loss(student, indices, log_probs, log_tail, temperature=2.0)
    moved = _loss(student + np.float32(shift), indices, log_probs, log_tail, temperature=2.0)
    np.testing.assert_allclose(moved, found, rtol=1e-3, atol=1e-3)
    order = np.array([place for place in order if place < k])
    shuffled = _loss(student, indices[:, order], log_probs[:, order], log_tail, temperature=2.0)
    np.testing.assert_allclose(shuffled, found, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
@pytest.mark.parametrize("k", [1, 3, 6, 7])
def test_gradient_is_the_softened_difference_and_none_reaches_the_teacher(k, temperature):
    grad, *teacher_grads = _grads(STUDENT, *_kept(TEACHER, k, temperature), temperature=temperature)
    # Of a class in the bucket, the student's own share of the bucket stands for the teacher's.
    expected = []
    for kept, q, p in _pairs(STUDENT, TEACHER, k, temperature):
        others = [c for c in range(CLASSES) if c not in kept]
        p_tail, q_tail = (math.fsum(x[c] for c in others) for x in (p, q))
        target = [p[c] if c in kept else p_tail * q[c] / q_tail for c in range(CLASSES)]
        expected.append(temperature * (np.array(q) - target))
    np.testing.assert_allclose(grad, expected, rtol=1e-4, atol=1e-5)
    assert all((np.asarray(g) == 0).all() for g in teacher_grads)


@pytest.mark.parametrize("temperature", [0.01, 1.0, 20.0])
@pytest.mark.parametrize("k", [1, 2, 3])
def test_extreme_logits_stay_finite(k, temperature):
    extreme = jnp.array([[1e4, -1e4, 0.0], [-1e4, 1e4, 1e4]])
    for student, teacher in [(extreme, -extreme), (-extreme, extreme), (extreme, extreme)]:
        kept = _kept(teacher, k, temperature)
        assert np.isfinite(_loss(student, *kept, temperature=temperature)).all()
        assert all(np.isfinite(g).all() for g in _grads(student, *kept, temperature=temperature))
    # One class against another: KL is the student's gap, 2e4 / T, and T^2 times that is T * 2e4.
    found = _top_k(extreme[:1], -extreme[:1], k, temperature)
    np.testing.assert_allclose(found, temperature * 2e4, rtol=1e-5)


def test_neither_tail_is_one_minus_the_rest():
    # Where float32 says 1 - p = 0, the tail is still known to the last digit.
    certain = jnp.array([[200.0, 0.0, 0.0]])
    _, log_probs, log_tail = _signal(certain, k=1, temperatures=(1.0, 4.0))
    assert float(jnp.exp(log_probs)[0, 0]) == 1
    np.testing.assert_allclose(log_tail, [[math.log(2) - 200, math.log(2) - 50]], rtol=1e-6)
    # The student's: a teacher that is half sure pays for a student with nothing left in the bucket.
    half = jnp.array([[math.log(2), 0.0, 0.0]])
    kept = _kept(half, 1, 1.0)
    np.testing.assert_allclose(
        _loss(certain, *kept, temperature=1.0), 0.5 * (200 - math.log(2)) - math.log(2), rtol=1e-6
    )
    grad, *_ = _grads(certain, *kept, temperature=1.0)
    np.testing.assert_allclose(grad, [[0.5, -0.25, -0.25]], rtol=1e-6)


@pytest.mark.parametrize("temperature", [0.01, 1.0, 20.0])
@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_what_underflowed_in_the_teacher_costs_nothing(scale, temperature):
    student = jnp.asarray([[1.0, -1.0, 0.5, 0.0]]) * scale
    indices, log_half = jnp.array([[2, 0, 1]]), math.log(0.5)
    log_probs, log_tail = jnp.array([[log_half, log_half, -jnp.inf]]), jnp.array([-jnp.inf])
    found = _loss(student, indices, log_probs, log_tail, temperature=temperature)
    grad, *teacher_grads = _grads(student, indices, log_probs, log_tail, temperature=temperature)

    q = np.array(softmax(np.asarray(student[0], float), temperature))
    gap = 0.5 * scale / temperature  # between the two classes that the teacher holds possible
    log_q0 = math.log(q[0])
    expected = temperature**2 * (log_half - 0.5 * (log_q0 + log_q0 - gap))
    np.testing.assert_allclose(found, [expected], rtol=1e-5)
    target = np.array([0.5, 0, 0.5, 0])
    np.testing.assert_allclose(grad, [temperature * (q - target)], rtol=1e-4, atol=1e-6)
    assert all((np.asarray(g) == 0).all() for g in teacher_grads)


def test_leading_axes_are_free():
    kept = _kept(TEACHER, 3, 2.0)
    flat = _loss(STUDENT, *kept, temperature=2.0)
    one = _loss(STUDENT[1], *(x[1] for x in kept), temperature=2.0)
    assert one.shape == ()
    np.testing.assert_allclose(one, flat[1], rtol=1e-5)
    cube = TEACHER.reshape(3, 2, CLASSES)
    indices, log_probs, log_tail = _signal(cube, k=3, temperatures=(1.0, 2.0))
    assert log_tail.shape == (3, 2, 2)
    found = _loss(
        STUDENT.reshape(3, 2, CLASSES), indices, log_probs, log_tail[..., 1], temperature=2.0
    )
    np.testing.assert_allclose(found.ravel(), flat, rtol=1e-5)


@pytest.mark.parametrize("k", [3, CLASSES])
def test_a_sweep_maps_over_the_temperature(k):
    temperatures = (0.5, 1.0, 4.0)
    indices, log_probs, log_tail = _signal(TEACHER, k=k, temperatures=temperatures)

    def total(student, log_tail, temperature):
        losses = kd_kl_top_k(student, indices, log_probs, log_tail, temperature=temperature)
        return losses.sum(), losses

    sweep = jax.jit(jax.vmap(jax.grad(total, has_aux=True), in_axes=(None, -1, 0)))
    grads, losses = sweep(STUDENT, log_tail, jnp.array(temperatures))
    for grad, found, temperature in zip(grads, losses, temperatures, strict=True):
        kept = _kept(TEACHER, k, temperature)
        expected = _loss(STUDENT, *kept, temperature=temperature)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
        expected, *_ = _grads(STUDENT, *kept, temperature=temperature)
        np.testing.assert_allclose(grad, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32", "int16"])
def test_any_integer_names_a_class(dtype):
    indices, log_probs, log_tail = _kept(TEACHER, 3, 2.0)
    expected = _loss(STUDENT, indices, log_probs, log_tail, temperature=2.0)
    found = _loss(STUDENT, indices.astype(dtype), log_probs, log_tail, temperature=2.0)
    np.testing.assert_array_equal(found, expected)


def test_what_is_broken_in_the_teacher_is_not_passed_over():
    indices, log_probs, log_tail = _kept(TEACHER, 3, 2.0)
    for broken in [
        (indices.at[2, 1].set(CLASSES), log_probs, log_tail),
        (indices, log_probs.at[2, 1].set(jnp.nan), log_tail),
        (indices, log_probs, log_tail.at[2].set(jnp.nan)),
    ]:
        found = np.asarray(_loss(STUDENT, *broken, temperature=2.0))
        np.testing.assert_array_equal(np.isnan(found), np.arange(6) == 2)


@settings(deadline=None, max_examples=30)
@given(_logits, _logits, st.integers(1, CLASSES - 1), _temperatures)
def test_a_teacher_in_float16_is_off_by_no_more_than_its_rounding(student, teacher, k, temperature):
    indices, log_probs, log_tail = _kept(teacher, k, temperature)
    found = _loss(
        student,
        indices.astype(jnp.uint16),
        log_probs.astype(jnp.float16),
        log_tail.astype(jnp.float16),
        temperature=temperature,
    )
    expected = np.asarray(_loss(student, indices, log_probs, log_tail, temperature=temperature))
    # Rounding moves each log p by at most `off` (0.06 here), and so, to first order, the loss by at
    # most T^2 * 2 off * sum p |log(p / q)|: twice, for the normalisation moves as well.
    stored = np.concatenate([log_probs / temperature, log_tail[:, None]], axis=-1)
    off = 2.0**-11 * np.abs(stored).max(axis=-1)
    size = []
    for kept, q, p in _pairs(student, teacher, k, temperature):
        pairs = zip(_buckets(p, kept), _buckets(q, kept), strict=True)
        size.append(math.fsum(a * abs(math.log(a / b)) for a, b in pairs))
    bound = temperature**2 * (2 * off * np.array(size) + 2 * off**2)
    # What float32 itself rounds is in logits of up to 50, and times T^2.
    rounding = 1e-4 * max(1.0, temperature**2) + 1e-5 * expected
    assert (np.abs(found - expected) <= 1.1 * bound + rounding).all()


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_low_precision_is_computed_in_float32(dtype):
    indices, *rest = _kept(TEACHER, 3, 3.0)
    low = [x.astype(dtype) for x in (STUDENT, *rest)]
    found = _loss(low[0], indices, *low[1:], temperature=3.0)
    assert found.dtype == jnp.float32
    wide = [x.astype(jnp.float32) for x in low]
    expected = _loss(wide[0], indices, *wide[1:], temperature=3.0)
    np.testing.assert_array_equal(found, expected)
    # The student and the cached teacher need not have one dtype.
    mixed = _loss(wide[0], indices, *low[1:], temperature=3.0)
    np.testing.assert_array_equal(mixed, expected)


def test_second_call_does_not_retrace_and_nor_does_another_temperature():
    traces = []

    @jax.jit
    def loss(student, kept, temperature):
        traces.append(0)
        return kd_kl_top_k(student, *kept, temperature=temperature)

    loss(STUDENT, _kept(TEACHER, 3, 2.0), 2.0)
    loss(TEACHER, _kept(STUDENT, 3, 4.0), 4.0)
    assert len(traces) == 1


@pytest.mark.parametrize("k", [1, 3, 7])
def test_the_signal_is_golden(k):
    temperatures = (0.5, 1.0, 4.0)
    indices, log_probs, log_tail = _signal(TEACHER, k=k, temperatures=temperatures)
    assert (indices.dtype, log_probs.dtype, log_tail.dtype) == ("int32", "float32", "float32")
    for row, classes, kept, tails in zip(TEACHER, indices, log_probs, log_tail, strict=True):
        p = softmax(np.asarray(row, float), 1.0)
        assert classes.tolist() == _order(p)[:k]
        np.testing.assert_allclose(kept, [math.log(p[c]) for c in _order(p)[:k]], rtol=1e-5)
        for tail, temperature in zip(tails, temperatures, strict=True):
            mass = math.fsum(p[c] ** (1 / temperature) for c in _order(p)[k:])
            np.testing.assert_allclose(tail, math.log(mass) if mass else -np.inf, rtol=1e-5)


@settings(deadline=None, max_examples=30)
@given(_logits, _ks, st.floats(-100, 100, width=32))
def test_the_signal_is_falling_sums_to_one_and_is_blind_to_a_shift(logits, k, shift):
    indices, log_probs, log_tail = _signal(logits, k=k, temperatures=(1.0, 3.0))
    total = np.exp(log_probs).sum(-1) + np.exp(log_tail[:, 0])
    np.testing.assert_allclose(total, 1, rtol=1e-5)
    assert (np.diff(log_probs, axis=-1) <= 0).all()
    assert all(len(set(row)) == k for row in np.asarray(indices).tolist())
    _, moved, moved_tail = _signal(logits + np.float32(shift), k=k, temperatures=(1.0, 3.0))
    np.testing.assert_allclose(moved, log_probs, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(moved_tail, log_tail, rtol=1e-4, atol=1e-4)


def test_of_equal_classes_the_signal_keeps_the_lower():
    logits = jnp.array([[1.0, 3.0, 0.0, 3.0, 3.0], [2.0, 2.0, 2.0, 2.0, 2.0]])
    indices, _, _ = _signal(logits, k=2, temperatures=(1.0,))
    np.testing.assert_array_equal(indices, [[1, 3], [0, 1]])


def test_the_signal_of_low_precision_is_computed_in_float32():
    low = TEACHER.astype(jnp.bfloat16)
    found = _signal(low, k=3, temperatures=(2.0,))
    expected = _signal(low.astype(jnp.float32), k=3, temperatures=(2.0,))
    jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.mark.parametrize(
    ("field", "k", "temperatures"),
    [
        ("k", 0, (1.0,)),
        ("k", -1, (1.0,)),
        ("k", CLASSES + 1, (1.0,)),
        ("temperatures", 3, ()),
        ("temperatures", 3, (1.0, 0.0)),
        ("temperatures", 3, (-4.0,)),
        ("temperatures", 3, (math.nan,)),
    ],
)
def test_bad_input_to_the_signal_is_named(field, k, temperatures):
    with pytest.raises(BadInput, match=f"^{field}: "):
        top_k_signal(TEACHER, k=k, temperatures=temperatures)
