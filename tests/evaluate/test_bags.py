"""TF-IDF of integers against sums by hand."""

import collections
import math

import numpy as np
import pytest

from kdjax import evaluate
from kdjax.evaluate import Sequences

FRAME = (1, 2)
TRAIN = [[1, 7, 8, 7, 2], [1, 8, 9, 2], [1, 7, 7, 7, 7, 2], [1, 5, 2]]
TEST = [[1, 7, 8, 2], [1, 4, 4, 2], [1, 5, 9, 8, 2]]


def _sequences(examples, most=8):
    values = np.zeros((len(examples), most), np.int32)
    for row, example in zip(values, examples, strict=True):
        row[: len(example)] = example
    return Sequences(values, np.asarray([len(e) for e in examples], np.int32), FRAME)


def _runs(example, longest):
    kept = [token for token in example if token not in FRAME]
    return collections.Counter(
        tuple(kept[i : i + size])
        for size in range(1, longest + 1)
        for i in range(len(kept) - size + 1)
    )


def _by_hand(examples, longest):
    """Rows of `{run: weight}`, each of length one."""
    counts = [_runs(example, longest) for example in TRAIN]
    known = {run for own in counts for run in own}
    n = len(TRAIN)
    idf = {run: math.log((1 + n) / (1 + sum(run in own for own in counts))) + 1 for run in known}
    rows = []
    for example in examples:
        row = {
            run: (1 + math.log(count)) * idf[run]
            for run, count in _runs(example, longest).items()
            if run in known
        }
        length = math.sqrt(sum(weight**2 for weight in row.values())) or 1.0
        rows.append({run: weight / length for run, weight in row.items()})
    return rows, known


@pytest.mark.parametrize("longest", [1, 2, 3])
def test_weights_are_those_by_hand(longest):
    found = evaluate.tfidf(
        {"tokens": _sequences(TRAIN)}, {"tokens": _sequences(TEST)}, longest=longest
    )
    for bags, examples in zip(found, (TRAIN, TEST), strict=True):
        rows, known = _by_hand(examples, longest)
        assert bags.shape == (len(examples), len(known))
        dense = bags.toarray()
        for weights, row in zip(dense, rows, strict=True):
            np.testing.assert_allclose(
                np.sort(weights[weights > 0]), np.sort([*row.values()]), rtol=1e-12
            )
        # Of two examples the products say which weights are of the same run.
        expected = [[sum(a[run] * b.get(run, 0.0) for run in a) for b in rows] for a in rows]
        np.testing.assert_allclose(dense @ dense.T, expected, atol=1e-12)


def test_the_same_integer_in_two_fields_is_two():
    fields = {"first": _sequences(TRAIN), "second": _sequences(TRAIN[::-1])}
    both, _ = evaluate.tfidf(fields, fields)
    one, _ = evaluate.tfidf({"first": fields["first"]}, {"first": fields["first"]})
    assert both.shape[1] == 2 * one.shape[1]


def test_the_two_texts_of_a_pair_are_told_apart():
    """As if they were two fields, and no run goes from the one into the other."""
    others = TRAIN[::-1]
    pairs = [one + other[1:] for one, other in zip(TRAIN, others, strict=True)]
    second = np.asarray([len(one) for one in TRAIN], np.int32)
    whole = _sequences(pairs, most=12)._replace(second=second)
    apart = {"first": _sequences(TRAIN), "other": _sequences(others)}
    wanted, found = (evaluate.tfidf(own, own)[0].toarray() for own in (apart, {"pair": whole}))
    assert found.shape == wanted.shape == (4, 2 * len(_by_hand(TRAIN, 2)[1]))
    np.testing.assert_allclose(found @ found.T, wanted @ wanted.T, atol=1e-12)


def test_a_classifier_of_sparse_features_is_that_of_dense_ones():
    random = np.random.default_rng(0)
    words = random.integers(3, 40, size=(300, 12))
    label = random.integers(2, size=300)
    words[np.arange(300), random.integers(12, size=300)] = np.where(label, 3, 4)
    whole = {"tokens": Sequences(words, np.full(300, 12), ())}
    bags, _ = evaluate.tfidf(whole, whole, longest=1)
    how = {"classes": 2, "seed": 0, "standardize": False, "strengths": (1e-4, 1e-2)}
    sparse, dense = (evaluate.linear_probe(x, label, **how) for x in (bags, bags.toarray()))
    assert sparse.strength == dense.strength
    np.testing.assert_allclose(sparse.logits(bags), dense.logits(bags.toarray()), atol=1e-4)
    assert (sparse.logits(bags).argmax(-1) == label).mean() > 0.85
    # At the minimum of mean cross-entropy and penalty the slope is zero, which says what strength means.
    x, y = bags.toarray(), np.eye(2)[label]
    one = evaluate.linear_probe(x, label, **{**how, "strengths": (1e-2,)})
    logits = x @ one.kernel + one.bias
    share = np.exp(logits - np.logaddexp(*logits.T)[:, None])
    slope = x.T @ (share - y) / len(x) + 1e-2 * one.kernel
    assert np.abs(slope).max() < 1e-5
