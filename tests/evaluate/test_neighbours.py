import math

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from kdjax.evaluate import knn
from kdjax.evaluate import neighbours as module
from kdjax.types import BadInput

RNG = np.random.default_rng(0)
CENTRES = RNG.normal(size=(4, 8))
LABEL = RNG.permutation(np.repeat(np.arange(4), 15))
FEATURES = (CENTRES[LABEL] + RNG.normal(0, 0.7, (60, 8))).astype(np.float32)
QUERIES = (CENTRES[np.arange(23) % 4] + RNG.normal(0, 0.7, (23, 8))).astype(np.float32)


def _by_hand(k, temperature):
    """Float64: neighbour by neighbour."""
    units = [row / math.sqrt(math.fsum(v * v for v in row)) for row in FEATURES.astype(float)]
    shares = []
    for query in QUERIES.astype(float):
        query = query / math.sqrt(math.fsum(v * v for v in query))
        cosine = [math.fsum(a * b for a, b in zip(query, row, strict=True)) for row in units]
        votes = [0.0] * 4
        for i in sorted(range(60), key=lambda i: -cosine[i])[:k]:
            votes[LABEL[i]] += math.exp(cosine[i] / temperature)
        shares.append([vote / sum(votes) for vote in votes])
    return np.array(shares)


@pytest.mark.parametrize(("k", "temperature"), [(1, 0.07), (5, 0.07), (20, 0.5), (60, 0.07)])
def test_golden(k, temperature):
    found = knn(FEATURES, LABEL, QUERIES, classes=4, k=k, temperature=temperature)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, _by_hand(k, temperature), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("k", [1, 7, 40])
def test_it_is_scikit_learns_vote(k):
    theirs = KNeighborsClassifier(
        k, metric="cosine", weights=lambda distance: np.exp((1 - distance) / 0.07)
    ).fit(FEATURES, LABEL)
    found = knn(FEATURES, LABEL, QUERIES, classes=4, k=k)
    np.testing.assert_allclose(found, theirs.predict_proba(QUERIES), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("batch", [1, 5, 23, 100])
def test_the_chunks_change_nothing_and_do_not_retrace(batch):
    whole = knn(FEATURES, LABEL, QUERIES, classes=4, k=9)
    before = module._votes._cache_size()
    for queries in (QUERIES, QUERIES[:11]):
        found = knn(FEATURES, LABEL, queries, classes=4, k=9, batch=batch)
        np.testing.assert_allclose(found, whole[: len(queries)], rtol=1e-5, atol=1e-7)
    assert module._votes._cache_size() <= before + 1


def test_blind_to_scale_and_to_where_arrays_are():
    found = knn(FEATURES, LABEL, QUERIES, classes=4, k=9)
    moved = knn(
        jnp.asarray(3 * FEATURES), jnp.asarray(LABEL), jnp.asarray(QUERIES / 3), classes=4, k=9
    )
    np.testing.assert_allclose(moved, found, rtol=1e-4, atol=1e-6)


def test_an_example_is_its_own_nearest_neighbour():
    found = knn(FEATURES, LABEL, FEATURES, classes=5, k=1)
    np.testing.assert_array_equal(found, np.eye(5)[LABEL])


def test_cold_temperatures_and_zero_rows_are_finite():
    found = knn(0 * FEATURES, LABEL, QUERIES, classes=4, k=20, temperature=0.001)
    # All are equally near: the first twenty vote.
    np.testing.assert_allclose(found, [np.bincount(LABEL[:20]) / 20] * 23, rtol=1e-5)
    cold = knn(FEATURES, LABEL, FEATURES, classes=4, k=20, temperature=0.001)
    np.testing.assert_allclose(cold.sum(-1), 1, rtol=1e-5)


def test_bad_input_is_refused():
    for k in (0, 61):
        with pytest.raises(BadInput, match=f"^k: {k} of 60"):
            knn(FEATURES, LABEL, QUERIES, classes=4, k=k)
    with pytest.raises(ValueError, match="label: 3 is not one of 3 classes"):
        knn(FEATURES, np.full(60, 3), QUERIES, classes=3, k=1)
    with pytest.raises(ValueError, match="label: -1 is not one of 4"):
        knn(FEATURES, np.full(60, -1), QUERIES, classes=4, k=1)
    with pytest.raises(ValueError, match="no examples"):
        knn(FEATURES, LABEL, QUERIES[:0], classes=4, k=1)
    with pytest.raises(ValueError, match="60 features but 59 labels"):
        knn.__wrapped__(FEATURES, LABEL[:59], QUERIES, classes=4, k=1)
