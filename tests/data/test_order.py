import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from kdjax.data import rows_at


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
