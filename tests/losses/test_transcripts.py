"""CTC against the sum over all paths; what is kept of a teacher's frames, by hand."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.losses import best_path, ctc, least_frames, near_symbols

CLASSES = 3


def collapsed(path):
    return tuple(c - 1 for c, _ in itertools.groupby(path) if c)


def all_paths(logits, labels):
    """`-log p(labels)` in float64: every path there is."""
    logits = np.asarray(logits, np.float64)
    log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    total = -np.inf
    for path in itertools.product(range(logits.shape[1]), repeat=len(logits)):
        if collapsed(path) == tuple(labels):
            total = np.logaddexp(total, sum(log_probs[t, c] for t, c in enumerate(path)))
    return -total


def padded(labels, most):
    return np.asarray([[*own, *[-1] * (most - len(own))] for own in labels], np.int32)


EACH = [(), (0,), (1, 0), (0, 0), (1, 1, 1), (0, 1, 0, 1), (0, 1, 1, 0, 0)]


@pytest.mark.parametrize("frames", [1, 3, 5])
def test_ctc_is_the_sum_over_all_paths(frames):
    logits = np.random.default_rng(frames).normal(size=(len(EACH), frames, CLASSES))
    logits = (2.0 * logits).astype(np.float32)
    found = ctc(jnp.asarray(logits), jnp.asarray(padded(EACH, 6)))
    wanted = [all_paths(own, labels) for own, labels in zip(logits, EACH, strict=True)]
    np.testing.assert_allclose(found, wanted, rtol=2e-6)
    assert np.isinf(wanted).any()  # such that have no path are among them
    assert np.isfinite(wanted).any()


def test_the_gradient_is_that_of_all_paths():
    logits = np.random.default_rng(0).normal(size=(4, CLASSES))
    labels = (0, 0)

    def loss(x):
        return ctc(x[None], jnp.asarray(padded([labels], 3)))[0]

    found = jax.grad(loss)(jnp.asarray(logits, jnp.float32))
    for at in np.ndindex(logits.shape):
        by = np.zeros(logits.shape)
        by[at] = 1e-5
        slope = (all_paths(logits + by, labels) - all_paths(logits - by, labels)) / 2e-5
        np.testing.assert_allclose(found[at], slope, atol=1e-5)


def test_the_least_frames_are_those_below_which_nothing_has_a_path():
    """Every transcript of up to four of two symbols."""
    for n in range(5):
        for labels in itertools.product((0, 1), repeat=n):
            (least,) = least_frames(jnp.asarray(padded([labels], 5))).tolist()
            for frames in range(1, 6):
                paths = itertools.product(range(CLASSES), repeat=frames)
                there = any(collapsed(path) == labels for path in paths)
                assert there == (frames >= least), (labels, frames)


def test_labels_without_a_path_are_infinite_and_send_no_gradient():
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(3, 3, CLASSES)), jnp.float32)
    labels = jnp.asarray(padded([(0, 0), (0, 1, 0), (1, 1, 0)], 3))
    found = ctc(logits, labels)
    np.testing.assert_array_equal(np.isinf(found), [False, False, True])
    gradient = jax.grad(lambda x: ctc(x, labels)[:2].sum())(logits)
    assert np.isfinite(gradient).all()
    own = jax.grad(lambda x: ctc(x, labels)[2])(logits)
    assert not np.asarray(own).any()
    # The frames that count decide.
    mask = jnp.asarray([[True, True, False], [True] * 3, [True] * 3])
    np.testing.assert_array_equal(np.isinf(ctc(logits, labels, mask)), [True, False, True])


@pytest.mark.parametrize(("frames", "most"), [(7, 4), (20, 4), (64, 9)])
def test_padding_changes_no_loss_and_no_gradient(frames, most):
    random = np.random.default_rng(0)
    logits = random.normal(size=(len(EACH), 7, CLASSES)).astype(np.float32)
    lengths = np.asarray([1, 3, 7, 4, 6, 7, 7])
    labels = [own[:4] for own in EACH]

    def of(width, most, fill):
        x = np.full((len(EACH), width, CLASSES), fill, np.float32)
        x[:, :7] = logits
        mask = jnp.asarray(np.arange(width)[None] < lengths[:, None])
        return jax.value_and_grad(
            lambda x: (lambda each: (each.sum(), each))(
                ctc(x, jnp.asarray(padded(labels, most)), mask)
            ),
            has_aux=True,
        )(jnp.asarray(x))

    (_, wanted), slope = of(7, 4, 0.0)
    (_, found), padded_slope = of(frames, most, 9.0)
    np.testing.assert_allclose(found, wanted, rtol=1e-6)
    np.testing.assert_allclose(padded_slope[:, :7], slope, atol=1e-6)
    behind = np.arange(frames)[None] >= lengths[:, None]
    assert not np.asarray(padded_slope)[behind].any()
    for own, loss, n, line in zip(logits, wanted, lengths, labels, strict=True):
        if n < 6:
            np.testing.assert_allclose(loss, all_paths(own[:n], line), rtol=2e-6)


def test_ctc_is_float32_inside():
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(2, 60, CLASSES)), jnp.bfloat16)
    labels = jnp.asarray(padded([(0, 1), (1,)], 2))
    found = ctc(logits, labels)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, ctc(logits.astype(jnp.float32), labels), rtol=1e-6)


def test_the_labels_of_a_path():
    classes = jnp.asarray([[0, 1, 1, 0, 1, 2], [2, 2, 1, 1, 2, 0], [0] * 6, [1, 2, 1, 2, 1, 2]])
    wanted = padded([(0, 0, 1), (1, 0, 1), (), (0, 1, 0, 1, 0, 1)], 6)
    np.testing.assert_array_equal(best_path(classes), wanted)
    mask = jnp.asarray(np.arange(6)[None] < np.asarray([4, 5, 6, 1])[:, None])
    wanted = padded([(0,), (1, 0, 1), (), (0,)], 6)
    np.testing.assert_array_equal(best_path(classes, mask), wanted)
    random = np.random.default_rng(0).integers(0, 4, size=(40, 9))
    wanted = padded([collapsed(path) for path in random], 9)
    np.testing.assert_array_equal(jax.jit(best_path)(jnp.asarray(random)), wanted)


def test_a_best_path_always_has_a_path():
    random = np.random.default_rng(0).integers(0, 3, size=(40, 8))
    assert (np.asarray(least_frames(best_path(jnp.asarray(random)))) <= 8).all()


def test_blanks_are_kept_near_symbols_alone():
    classes = jnp.asarray([[0, 0, 0, 3, 3, 0, 0, 0, 0, 1], [0] * 10, [2] + [0] * 9])

    def kept(around):
        rows = np.asarray(near_symbols(classes, around=around))
        return ["".join("x" if one else "." for one in row) for row in rows]

    assert kept(0) == ["...xx....x", "..........", "x........."]
    assert kept(1) == ["..xxxx..xx", "..........", "xx........"]
    assert kept(2) == [".xxxxxxxxx", "..........", "xxx......."]
    assert kept(9) == ["xxxxxxxxxx", "..........", "xxxxxxxxxx"]
    random = np.random.default_rng(0).integers(0, 3, size=(30, 15)) * (
        np.random.default_rng(1).random((30, 15)) < 0.2
    )
    for around in range(4):
        found = np.asarray(near_symbols(jnp.asarray(random), around=around))
        for row, own in zip(random, found, strict=True):
            for t in range(15):
                assert own[t] == row[max(0, t - around) : t + around + 1].any()
    # The same from the other end: neither side has more.
    turned = near_symbols(classes[:, ::-1], around=2)[:, ::-1]
    np.testing.assert_array_equal(turned, near_symbols(classes, around=2))
