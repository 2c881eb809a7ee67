"""Decoding against all paths of short examples."""

import itertools

import numpy as np
import pytest

from kdjax.evaluate import greedy, prefix_beam


def collapsed(path, blank):
    """As CTC says it: equal neighbours are one, then the blanks go."""
    return tuple(c for c, _ in itertools.groupby(path) if c != blank)


def all_labels(logits, blank):
    """`{labels: log probability}`: the sum over every path there is."""
    log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    found = {}
    for path in itertools.product(range(logits.shape[1]), repeat=len(logits)):
        own = sum(log_probs[t, c] for t, c in enumerate(path))
        labels = collapsed(path, blank)
        found[labels] = np.logaddexp(found.get(labels, -np.inf), own)
    return found


@pytest.mark.parametrize(
    ("frames", "classes", "blank"), [(1, 3, 0), (4, 3, 2), (6, 3, 0), (5, 4, 1)]
)
def test_a_beam_of_all_beginnings_is_every_path(frames, classes, blank):
    for seed in range(4):
        logits = 2.0 * np.random.default_rng(seed).normal(size=(frames, classes))
        wanted = all_labels(logits, blank)
        found = prefix_beam(logits, beam=10_000, blank=blank)
        assert {one.labels for one in found if np.isfinite(one.log_prob)} == {*wanted}
        np.testing.assert_allclose(sum(np.exp(one.log_prob) for one in found), 1.0, rtol=1e-12)
        for labels, log_prob in found:
            if np.isfinite(log_prob):
                np.testing.assert_allclose(log_prob, wanted[labels], rtol=1e-9, atol=1e-12)
        assert found[0].labels == max(wanted, key=lambda labels: wanted[labels])


def test_a_narrow_beam_says_less_than_there_is_and_finds_most():
    right = 0
    for seed in range(20):
        logits = 2.0 * np.random.default_rng(seed).normal(size=(6, 3))
        wanted = all_labels(logits, 0)
        found = prefix_beam(logits, beam=4)
        assert len(found) == 4
        assert [one.log_prob for one in found] == sorted(one.log_prob for one in found)[::-1]
        for labels, log_prob in found:
            assert log_prob <= wanted[labels] + 1e-9
        right += found[0].labels == max(wanted, key=lambda labels: wanted[labels])
    assert right >= 15


def test_the_labels_of_the_best_path_need_not_be_the_best():
    """Two frames of 0.4 for `a` and 0.6 for the blank: the blank is the best path, `a` has 0.64."""
    logits = np.log(np.asarray([[0.6, 0.4], [0.6, 0.4]]))
    assert greedy(logits[None]) == [()]
    best, second = prefix_beam(logits, beam=2)
    assert (best.labels, second.labels) == ((1,), ())
    np.testing.assert_allclose(np.exp([best.log_prob, second.log_prob]), [0.64, 0.36])


def test_the_best_path_is_collapsed():
    paths = np.asarray([[0, 1, 1, 0, 1, 2], [2, 2, 2, 1, 1, 1], [0] * 6])
    logits = np.eye(3)[paths]
    assert greedy(logits) == [(1, 1, 2), (2, 1), ()]
    assert greedy(logits, blank=2) == [(0, 1, 0, 1), (1,), (0,)]
    mask = np.arange(6)[None] < np.asarray([3, 6, 0])[:, None]
    assert greedy(logits, mask=mask) == [(1,), (2, 1), ()]
    random = np.random.default_rng(0).normal(size=(50, 9, 4))
    assert greedy(random) == [collapsed(path, 0) for path in random.argmax(-1)]


def test_a_beam_of_none_is_refused():
    with pytest.raises(ValueError, match="a beam of 0: give 1 or more"):
        prefix_beam(np.zeros((2, 3)), beam=0)
