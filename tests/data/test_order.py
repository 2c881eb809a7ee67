from concurrent import futures

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from kdjax import keys
from kdjax.data import Partners, order, rows_at

IDS = np.array([40, 3, 17, 99, 5, 60, 2, 77, 31, 8], np.uint32)


def test_golden():
    """Pinned: another order is another result, and breaks the resumption of every run."""
    rows, epochs = rows_at(np.arange(14), n=10, seed=0)
    assert rows.tolist() == [0, 2, 9, 1, 8, 5, 4, 3, 6, 7, 5, 3, 7, 8]
    assert epochs.tolist() == [0] * 10 + [1] * 4
    assert (rows.dtype, epochs.dtype) == (np.int64, np.uint32)
    rows, _ = rows_at(np.arange(6), n=1437, seed=1)
    assert rows.tolist() == [1261, 404, 476, 1172, 1212, 90]


@given(n=st.integers(1, 40), batch=st.integers(1, 60), seed=st.integers(0, 2**63))
def test_each_epoch_has_every_example_once_though_batches_straddle(n, batch, seed):
    batches = [
        rows_at(np.arange(step * batch, (step + 1) * batch), n=n, seed=seed)
        for step in range(-(-3 * n // batch))
    ]
    assert all(len(rows) == len(epochs) == batch for rows, epochs in batches)
    rows, epochs = (np.concatenate(part) for part in zip(*batches, strict=True))
    for epoch in range(3):
        assert sorted(rows[epochs == epoch]) == list(range(n))
    assert (np.diff(epochs.astype(int)) >= 0).all()


@given(st.integers(1, 40), st.integers(0, 100), st.integers(1, 50))
def test_a_run_begun_in_the_middle_reads_what_it_would_have_read(n, start, size):
    whole = rows_at(np.arange(start + size), n=n, seed=3)
    rest = rows_at(np.arange(start, start + size), n=n, seed=3)
    for all_of_it, from_the_middle in zip(whole, rest, strict=True):
        np.testing.assert_array_equal(all_of_it[start:], from_the_middle)


def test_positions_need_not_be_a_run():
    # What one process of several asks for.
    whole, epochs = rows_at(np.arange(30), n=7, seed=0)
    some = np.array([29, 3, 3, 14])
    found, found_epochs = rows_at(some, n=7, seed=0)
    np.testing.assert_array_equal(found, whole[some])
    np.testing.assert_array_equal(found_epochs, epochs[some])


def test_epochs_and_seeds_have_orders_of_their_own():
    def order(seed, epoch):
        return tuple(rows_at(np.arange(100 * epoch, 100 * (epoch + 1)), n=100, seed=seed)[0])

    assert len({order(seed, epoch) for seed in range(4) for epoch in range(4)}) == 16


def test_the_caller_may_write_into_what_it_got():
    rows, _ = rows_at(np.arange(5), n=5, seed=9)
    before = rows.copy()
    rows[:] = -1
    np.testing.assert_array_equal(rows_at(np.arange(5), n=5, seed=9)[0], before)


def test_positions_beyond_32_bits():
    rows, epochs = rows_at(np.arange(10**10, 10**10 + 10), n=10, seed=0)
    assert sorted(rows) == list(range(10))
    assert set(epochs) == {10**9}


@pytest.mark.parametrize("n", [1, 2])
def test_tiny_datasets(n):
    rows, epochs = rows_at(np.arange(5), n=n, seed=0)
    np.testing.assert_array_equal(epochs, np.arange(5) // n)
    assert set(rows) == set(range(n))


def partners(ids, view, *, seed=0, stream=1):
    """The partner of every row."""
    views = np.full(len(ids), view, np.uint32)
    return Partners(ids, seed=seed, stream=stream).rows(np.arange(len(ids)), views)


def test_partners_golden():
    """Pinned: other partners are other results, and break every cache of mixed views."""
    stream = keys.stream_id("distill")
    assert partners(IDS, 0, stream=stream).tolist() == [9, 1, 2, 8, 0, 6, 3, 7, 4, 5]
    assert partners(IDS, 1, stream=stream).tolist() == [1, 9, 7, 6, 5, 4, 2, 8, 3, 0]
    assert partners(IDS, 0).dtype == np.int64


@given(
    ids=st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=40, unique=True),
    view=st.integers(0, 2**32 - 1),
    seed=st.integers(0, 2**64 - 1),
    stream=st.integers(0, 2**31 - 1),
)
def test_each_example_is_a_partner_once_a_view(ids, view, seed, stream):
    rows = partners(np.array(ids, np.uint32), view, seed=seed, stream=stream)
    assert sorted(rows) == list(range(len(ids)))


@given(st.permutations(range(10)), st.integers(0, 5))
def test_the_partner_of_an_id_does_not_depend_on_the_order_of_the_dataset(places, view):
    here, there = IDS, IDS[places]
    found = dict(zip(here.tolist(), here[partners(here, view)].tolist(), strict=True))
    assert found == dict(zip(there.tolist(), there[partners(there, view)].tolist(), strict=True))


def test_all_partners_are_equally_likely():
    counts = np.zeros((5, 5), int)
    for view in range(2000):
        counts[np.arange(5), partners(IDS[:5], view)] += 1
    assert counts.min() > 330
    assert counts.max() < 470


def test_a_batch_of_several_views_and_any_rows():
    found = Partners(IDS, seed=0, stream=1)
    rows, views = np.array([7, 0, 7, 3, 3]), np.array([2, 0, 1, 2, 2], np.uint32)
    expected = [partners(IDS, view)[row] for row, view in zip(rows, views, strict=True)]
    assert found.rows(rows, views).tolist() == expected


def test_other_view_seed_or_stream_has_other_partners():
    ids = np.arange(50, dtype=np.uint32)
    drawn = {
        tuple(partners(ids, view, seed=seed, stream=stream))
        for view in (0, 1, 2**31)
        for seed in (0, 1, 2**63)
        for stream in (0, 1, 2**31 - 1)
    }
    assert len(drawn) == 27


def test_partners_are_apart_from_the_order_of_reading():
    """With the same seed, and views and streams as epochs: else an example's batch tells its partner."""
    reading = {tuple(rows_at(np.arange(50 * e, 50 * e + 50), n=50, seed=0)[0]) for e in range(40)}
    ids = np.arange(50, dtype=np.uint32)
    drawn = {tuple(partners(ids, v, stream=stream)) for v in range(8) for stream in range(5)}
    assert len(reading | drawn) == 80


def test_threads_share_partners():
    ids = np.random.default_rng(0).permutation(3000).astype(np.uint32)
    shared = Partners(ids, seed=5, stream=6)
    expected = [partners(ids, view, seed=5, stream=6) for view in range(12)]
    order._paired.cache_clear()

    def read(step):
        rows = np.arange(3000)[step % 7 :: 7]
        return shared.rows(rows, np.full(len(rows), step % 12, np.uint32))

    with futures.ThreadPoolExecutor(8) as pool:
        found = list(pool.map(read, range(400)))
    for step, rows in enumerate(found):
        np.testing.assert_array_equal(rows, expected[step % 12][step % 7 :: 7])
