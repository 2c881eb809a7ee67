import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given

from kdjax import tree
from kdjax.data import (
    from_arrays,
    join_partners,
    resident_arrays,
    resident_feeds,
    rows_at,
    stream_feeds,
    take,
)
from kdjax.data.feed import chunks

N, BATCH = 10, 6
IMAGES = np.random.default_rng(0).integers(256, size=(N, 2, 3, 1), dtype=np.uint8)
DATASET = from_arrays(
    IMAGES, np.arange(N) % 3, classes=3, ids=np.arange(100, 100 + N, dtype=np.uint32)
)
HOW = {"seed": 1, "batch": BATCH, "start": 0, "stop": 7, "dispatch_steps": 3}


def _resident(share=slice(0, BATCH), **changes):
    return list(resident_feeds(N, share=share, **{**HOW, **changes}))


def _stream(share=slice(0, BATCH), **changes):
    return list(stream_feeds(DATASET, share=share, threads=2, **{**HOW, **changes}))


def _same_dtype(x, y):
    assert x.dtype == y.dtype


def _steps(feeds):
    """One dict a step, out of the feeds."""
    return [
        jax.tree.map(lambda x, i=i: x[i], feed)
        for _, feed in feeds
        for i in range(len(feed["epoch"]))
    ]


@given(st.integers(0, 40), st.integers(0, 40), st.integers(1, 9))
def test_chunks_cover_every_step_once_and_end_at_multiples(start, stop, size):
    found = list(chunks(start, stop, size))
    assert [step for first, end in found for step in range(first, end)] == list(range(start, stop))
    assert all(0 < end - first <= size for first, end in found)
    assert all(end % size == 0 for _, end in found[:-1])


@pytest.mark.parametrize("feeds", [_resident, _stream])
def test_feeds_end_where_they_say(feeds):
    found = feeds(start=2, stop=8)
    assert [end for end, _ in found] == [3, 6, 8]
    for (_, feed), steps in zip(found, (1, 3, 2), strict=True):
        assert {leaf.shape[:2] for leaf in jax.tree.leaves(feed)} == {(steps, BATCH)}
    assert feeds(start=5, stop=5) == []


def test_dtypes():
    _, feed = _resident()[0]
    assert {name: x.dtype for name, x in feed.items()} == {"row": "int32", "epoch": "uint32"}
    _, feed = _stream()[0]
    assert {name: x.dtype for name, x in tree.named_leaves(feed).items()} == {
        "id": "uint32",
        "inputs/image": "uint8",
        "label": "int32",
        "epoch": "uint32",
    }


def test_resident_and_stream_give_the_same_batches_in_the_order_of_the_dataset():
    resident = jax.device_put(resident_arrays(DATASET))
    look_up = jax.jit(take)
    pairs = zip(_steps(_resident()), _steps(_stream()), strict=True)
    for step, (row, streamed) in enumerate(pairs):
        rows, epochs = rows_at(np.arange(step * BATCH, (step + 1) * BATCH), n=N, seed=1)
        found = look_up(resident, row)
        for batch in (found, look_up(resident, streamed)):
            np.testing.assert_array_equal(batch["id"], 100 + rows)
            np.testing.assert_array_equal(batch["inputs"]["image"], IMAGES[rows])
            np.testing.assert_array_equal(batch["label"], rows % 3)
            np.testing.assert_array_equal(batch["epoch"], epochs)
        for name in ("id", "inputs", "label", "epoch"):
            jax.tree.map(_same_dtype, found[name], streamed[name])
    assert step == 6


@pytest.mark.parametrize("feeds", [_resident, _stream])
def test_neither_the_length_of_feeds_nor_a_resumption_changes_a_batch(feeds):
    whole = _steps(feeds())
    for changes in ({"dispatch_steps": 1}, {"dispatch_steps": 100}, {"start": 4}):
        some = _steps(feeds(**changes))
        for expected, found in zip(whole[changes.get("start", 0) :], some, strict=True):
            jax.tree.map(np.testing.assert_array_equal, expected, found)


@pytest.mark.parametrize("feeds", [_resident, _stream])
def test_the_shares_of_two_processes_are_the_global_batch(feeds):
    shares = [_steps(feeds(share=share)) for share in (slice(0, 3), slice(3, 6))]
    for whole, first, second in zip(_steps(feeds()), *shares, strict=True):
        joined = jax.tree.map(lambda *parts: np.concatenate(parts), first, second)
        jax.tree.map(np.testing.assert_array_equal, whole, joined)


@pytest.mark.parametrize("feeds", [_resident, _stream])
def test_joins_are_by_row_and_epoch(feeds):
    def join(rows, epochs):
        return {"twice": np.stack([rows, epochs], axis=-1), "half": rows.astype(np.float16) / 2}

    batches = _steps(feeds(join=join))
    for batch, other in zip(batches, _steps(_resident()), strict=True):
        np.testing.assert_array_equal(batch["twice"][:, 0], other["row"])
        np.testing.assert_array_equal(batch["twice"][:, 1], batch["epoch"])
        assert batch["half"].dtype == np.float16
    assert {int(epoch) for batch in batches for epoch in batch["epoch"]} == {0, 1, 2, 3, 4}


def test_partners_are_the_same_in_each_mode():
    def rows_of(rows, epochs):
        return (3 * rows + epochs) % N

    resident = jax.device_put(resident_arrays(DATASET))
    look_up = jax.jit(take)
    rows_of_resident = _resident(join=join_partners(DATASET, rows_of, resident=True))
    streamed = _stream(join=join_partners(DATASET, rows_of, resident=False))
    for row, batch in zip(_steps(rows_of_resident), _steps(streamed), strict=True):
        found = look_up(resident, row)
        partners = rows_of(row["row"], row["epoch"])
        np.testing.assert_array_equal(found["partner_id"], 100 + partners)
        np.testing.assert_array_equal(found["partner_inputs"]["image"], IMAGES[partners])
        np.testing.assert_array_equal(found["partner_label"], partners % 3)
        own = {name: found[name] for name in batch}
        jax.tree.map(np.testing.assert_array_equal, own, batch)
        jax.tree.map(_same_dtype, own, batch)


def test_what_goes_wrong_in_a_reader_is_raised_in_the_loop():
    def join(ids, epochs):
        if epochs.max() > 1:
            raise KeyError("no such entry in the cache")
        return {}

    feeds = stream_feeds(DATASET, share=slice(0, BATCH), threads=2, join=join, **HOW)
    next(feeds)
    with pytest.raises(KeyError, match="no such entry in the cache"):
        list(feeds)


def test_a_stream_left_early_ends_quietly():
    feeds = stream_feeds(DATASET, share=slice(0, BATCH), threads=2, **{**HOW, "stop": 10**6})
    end, _ = next(feeds)
    assert end == 3
    feeds.close()


def test_take_leaves_a_streamed_batch_as_it_is():
    batch = {"id": jnp.arange(3, dtype=jnp.uint32), "teacher_logits": jnp.zeros((3, 2))}
    assert take({}, batch) == batch
