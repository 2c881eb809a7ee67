"""Examples that differ in length: read padded, and put together by length."""

import itertools
import re

import hypothesis.strategies as st
import jax
import numpy as np
import pytest
from hypothesis import given

from kdjax import data
from kdjax.data.grouped import Grouped, Widths
from kdjax.inputs import Inputs, Length, Numbers
from kdjax.types import BadInput, Field

N, MOST, BATCH = 61, 18, 8
BUCKETS = {"tokens": (5, 9, MOST)}
RANDOM = np.random.default_rng(0)
LENGTHS = RANDOM.integers(1, MOST + 1, size=N)
TOKENS = [RANDOM.integers(1, 30, size=length) for length in LENGTHS]
LABELS = np.arange(N) % 3
IDS = np.arange(500, 500 + N, dtype=np.uint32)


def _arrays(**changes):
    return data.from_fields(
        {"tokens": TOKENS, "size": LENGTHS / 2},
        LABELS,
        **{
            "classes": 3,
            "ids": IDS,
            "ragged": {"tokens": MOST},
            "below": {"tokens": 40},
            **changes,
        },
    )


def _source(**changes):
    examples = [
        {"tokens": TOKENS[i], "size": np.float32(LENGTHS[i] / 2), "label": LABELS[i], "id": 500 + i}
        for i in range(N)
    ]
    return data.from_source(
        examples,
        **{
            "inputs": ["tokens", "size"],
            "classes": 3,
            "id": "id",
            "ragged": {"tokens": MOST},
            "below": {"tokens": 40},
            **changes,
        },
    )


def _padded(row):
    return np.pad(TOKENS[row], (0, MOST - LENGTHS[row]))


@pytest.mark.parametrize("made", [_arrays, _source])
def test_examples_are_read_padded_with_their_lengths(made):
    dataset = made()
    assert list(dataset.fields) == ["tokens", "tokens_length", "size"]
    assert dataset.fields["tokens"] == Field(
        (MOST,), dataset.fields["tokens"].dtype, 40, ragged=True
    )
    rows = np.array([3, 60, 3, 0])
    found = dataset.read(rows)
    np.testing.assert_array_equal(found["tokens"], [_padded(row) for row in rows])
    np.testing.assert_array_equal(found["tokens_length"], LENGTHS[rows])
    assert found["tokens_length"].dtype == np.int32
    np.testing.assert_array_equal(found["size"], LENGTHS[rows] / 2)
    np.testing.assert_array_equal(dataset.lengths["tokens"], LENGTHS)
    some = dataset.select(rows[:2])
    np.testing.assert_array_equal(some.lengths["tokens"], LENGTHS[rows[:2]])
    np.testing.assert_array_equal(some.inputs()["tokens"], found["tokens"][:2])


@pytest.mark.parametrize("made", [_arrays, _source])
def test_a_fingerprint_is_of_the_lengths_too(made):
    other = {"ragged": {"tokens": MOST + 1}}
    assert made().fingerprint == made().fingerprint
    assert made(**other).fields != made().fields  # which a model is described by
    whole = {"tokens": [np.concatenate(TOKENS)[:2], np.concatenate(TOKENS)[2:3]]}
    moved = {"tokens": [np.concatenate(TOKENS)[:1], np.concatenate(TOKENS)[1:3]]}
    marks = {
        data.from_fields(x, [0, 1], classes=2, ragged={"tokens": MOST}).fingerprint
        for x in (whole, moved)
    }
    assert len(marks) == 2


def test_what_a_model_is_given():
    inputs = Inputs.of(_arrays().fields)
    assert [type(part) for part in inputs.parts] == [Numbers, Length, Numbers]
    assert inputs.fields == dict(_arrays().fields)
    assert str(inputs).startswith("tokens of int32[18] at most, tokens_length up to 18, size of")
    blank = inputs.blank(2)
    assert blank["tokens"].shape == (2, MOST)
    np.testing.assert_array_equal(blank["tokens_length"], [MOST, MOST])
    lengths = inputs.fields["tokens_length"].made_up(200)
    assert lengths.min() == 1
    assert lengths.max() == MOST


@pytest.mark.parametrize("made", [_arrays, _source])
@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"ragged": {"tokens": 17}}, r"has 18 positions, not 1 to 17; cut it, or allow for longer"),
        ({"ragged": {"tokens": "18"}}, r"the longest that there may be is '18'; give an integer"),
        (
            {"ragged": {"token": 18}},
            r"token of \w+ is said to be ragged, and the inputs are tokens",
        ),
        ({"ragged": {"tokens": MOST, "size": 3}}, "is one number; a ragged array has positions"),
        ({"below": {"tokens": 20}}, r"go from 1 to 29, and are to be in \[0, 20\)"),
    ],
)
def test_what_is_not_ragged_is_one_line(made, changes, line):
    with pytest.raises(BadInput, match=line) as caught:
        made(**changes)
    assert "\n" not in str(caught.value)


def test_an_example_without_a_position_is_refused():
    with pytest.raises(BadInput, match=r"example 1 has 0 positions, not 1 to 4; leave it out"):
        data.from_fields({"x": [[1.0], []]}, [0, 0], classes=1, ragged={"x": 4})
    arrays = [np.zeros((1, 2)), np.zeros((2, 3))]
    with pytest.raises(BadInput, match=re.escape("of example 1 are float64[2, 3], of the first")):
        data.from_fields({"x": arrays}, [0, 0], classes=1, ragged={"x": 4})
    with pytest.raises(BadInput, match="x_length of arrays is the name of the lengths of x"):
        data.from_fields({"x": [[1]], "x_length": [1]}, [0], classes=1, ragged={"x": 4})


@given(
    st.lists(st.integers(1, 20), min_size=1, max_size=40),
    st.integers(1, 12),
    st.integers(0, 2**64 - 1),
    st.sets(st.integers(1, 20), max_size=4),
)
def test_each_epoch_has_every_example_once(lengths, batch, seed, ends):
    n = len(lengths)
    buckets = sorted({*ends, 20})
    grouped = Grouped(Widths({"x": np.asarray(lengths)}, {"x": buckets}), seed=seed, batch=batch)
    steps = range(-(-4 * n // batch))
    rows, epochs = (np.concatenate(x) for x in zip(*map(grouped.rows, steps), strict=True))
    np.testing.assert_array_equal(epochs, np.arange(len(rows)) // n)
    for epoch in range(4):
        assert sorted(rows[epochs == epoch]) == list(range(n))
    for step in steps:
        own = max(lengths[row] for row in grouped.rows(step)[0])
        assert grouped.padded(step, step + 1) == {"x": min(end for end in buckets if end >= own)}


def test_batches_are_of_one_bucket_but_for_those_between_two():
    lengths = np.random.default_rng(1).integers(1, 101, size=1003)
    buckets = (25, 50, 75, 100)
    grouped = Grouped(Widths({"x": lengths}, {"x": buckets}), seed=3, batch=16)
    steps = 1003 * 16 // 16  # sixteen epochs end with a batch
    of = [np.searchsorted(buckets, lengths[grouped.rows(step)[0]]) for step in range(steps)]
    mixed = sum(len(set(own)) > 1 for own in of)
    assert 0 < mixed <= 16 * 3
    # Not one bucket after the other: as many changes as a shuffle has.
    changes = sum(a.max() != b.max() for a, b in itertools.pairwise(of))
    assert changes > 0.6 * steps
    other = Grouped(Widths({"x": lengths}, {"x": buckets}), seed=4, batch=16)
    assert any((grouped.rows(i)[0] != other.rows(i)[0]).any() for i in range(3))


def _stream(share=slice(0, BATCH), **changes):
    how = {"seed": 1, "batch": BATCH, "start": 0, "stop": 20, "dispatch_steps": 1, "threads": 2}
    return list(data.stream_feeds(_arrays(), share=share, buckets=BUCKETS, **{**how, **changes}))


def _steps(feeds):
    return [
        jax.tree.map(lambda x, i=i: x[i], feed)
        for _, feed in feeds
        for i in range(len(feed["epoch"]))
    ]


def test_a_feed_is_cut_to_the_bucket_of_its_longest_example():
    shapes = set()
    for batch in _steps(_stream()):
        rows = batch["id"].astype(int) - 500
        most = batch["inputs"]["tokens"].shape[1]
        shapes.add(most)
        assert most == min(end for end in BUCKETS["tokens"] if end >= LENGTHS[rows].max())
        np.testing.assert_array_equal(
            batch["inputs"]["tokens"], [_padded(row)[:most] for row in rows]
        )
        np.testing.assert_array_equal(batch["inputs"]["tokens_length"], LENGTHS[rows])
        np.testing.assert_array_equal(batch["label"], LABELS[rows])
    assert shapes == set(BUCKETS["tokens"])


def test_neither_dispatches_nor_a_resumption_change_what_is_in_a_batch():
    whole = _steps(_stream())
    for changes in ({"dispatch_steps": 4}, {"dispatch_steps": 100}, {"start": 8}):
        for dispatched in (changes, {**changes, "stop": 13}):
            some = _steps(_stream(**dispatched))
            for expected, found in zip(whole[changes.get("start", 0) :], some, strict=False):
                np.testing.assert_array_equal(expected["id"], found["id"])
                np.testing.assert_array_equal(expected["epoch"], found["epoch"])
                most = expected["inputs"]["tokens"].shape[1]
                cut, rest = np.split(found["inputs"]["tokens"], [most], axis=1)
                np.testing.assert_array_equal(expected["inputs"]["tokens"], cut)
                assert not rest.any()
    # A dispatch that is begun anew in its middle is as long as the whole one was.
    long = [x["inputs"]["tokens"].shape for x in _steps(_stream(dispatch_steps=5))]
    assert long[8:] == [
        x["inputs"]["tokens"].shape for x in _steps(_stream(dispatch_steps=5, start=8))
    ]


def test_the_shares_of_two_processes_are_the_global_batch():
    shares = [_steps(_stream(share=share)) for share in (slice(0, 4), slice(4, 8))]
    for whole, first, second in zip(_steps(_stream()), *shares, strict=True):
        joined = jax.tree.map(lambda *parts: np.concatenate(parts), first, second)
        jax.tree.map(np.testing.assert_array_equal, whole, joined)


def test_examples_are_padded_to_the_bucket_of_the_longest():
    widths = Widths({"tokens": LENGTHS}, BUCKETS)
    rows = np.random.default_rng(1).permutation(N)[:20]
    ordered = rows[widths.alike(rows)]
    ends = [min(end for end in BUCKETS["tokens"] if end >= LENGTHS[row]) for row in ordered]
    assert ends == sorted(ends)
    for end in BUCKETS["tokens"]:  # those of a bucket stay in their order
        assert [r for r, e in zip(ordered, ends, strict=True) if e == end] == [
            r for r in rows if r in ordered[np.asarray(ends) == end]
        ]
    for some in (rows[:1], rows[:3], rows):
        assert widths.of(some) == {
            "tokens": min(e for e in BUCKETS["tokens"] if e >= LENGTHS[some].max())
        }
    read = _arrays().read(rows[:3])
    short = data.cut(read, {"tokens": 7})
    np.testing.assert_array_equal(short["tokens"], read["tokens"][:, :7])
    assert {name: array.shape for name, array in short.items() if name != "tokens"} == {
        name: array.shape for name, array in read.items() if name != "tokens"
    }
