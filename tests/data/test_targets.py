import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import data
from kdjax.data import Classes, Tags, Transcripts, Values, Vectors, labelled_rows
from kdjax.types import BadInput

N = 12
X = np.random.default_rng(0).normal(size=(N, 3)).astype(np.float32)
CLASSES = np.arange(N) % 3
VALUES = np.random.default_rng(1).normal(size=(N, 2))
TAGS = np.random.default_rng(2).integers(4, size=(N, 5))
SAID = np.where(np.arange(5) < 1 + np.arange(N)[:, None] % 5, TAGS, -1)
ABCD = Transcripts(("a", "b", "c", "d"), 5)


def _dataset(target, labels=None):
    each = {Classes: CLASSES, Values: VALUES, Vectors: VALUES, Tags: TAGS, Transcripts: SAID}
    usual = each[type(target)]
    return data.from_fields({"x": X}, usual if labels is None else labels, target=target)


EVERY = pytest.mark.parametrize(
    "target", [Classes(3), Values(2), Vectors(2), Tags(classes=4, positions=5), ABCD], ids=str
)


@EVERY
def test_labels_are_hidden_selected_and_fingerprinted(target):
    dataset = _dataset(target)
    assert dataset.labels.dtype == target.dtype
    assert dataset.labels.shape == (N, *target.shape)
    assert dataset.shown.all()

    shown = np.array([7, 2])
    some = dataset.hide_labels(shown)
    assert np.flatnonzero(some.shown).tolist() == [2, 7]
    np.testing.assert_array_equal(some.labels[shown], dataset.labels[shown])
    assert (some.target, some.fingerprint != dataset.fingerprint) == (target, True)
    # Hidden labels are no part of it, whatever they are.
    others = np.array(dataset.labels)
    others[[0, 1, 3]] = np.roll(others[[0, 1, 3]], 1, axis=0)
    assert _dataset(target, others).hide_labels(shown).fingerprint == some.fingerprint
    assert dataset.hide_labels(np.arange(N)).fingerprint == dataset.fingerprint

    part = some.select(np.array([2, 3, 7]))
    assert part.shown.tolist() == [True, False, True]
    np.testing.assert_array_equal(part.labels[[0, 2]], dataset.labels[[2, 7]])
    assert part.fingerprint != dataset.select(np.array([2, 3, 7])).fingerprint


@EVERY
def test_what_is_shown_is_the_same_on_the_device(target):
    dataset = _dataset(target).hide_labels(np.array([1, 4]))
    found = jax.jit(target.shown)(jnp.asarray(dataset.labels))
    np.testing.assert_array_equal(found, dataset.shown)


@EVERY
def test_a_share_of_the_labels_is_drawn_by_id(target):
    dataset = _dataset(target)
    half, all_rows = (labelled_rows(dataset, seed=0, share=share) for share in (0.5, 1.0))
    assert len(half) == N // 2
    assert all_rows.tolist() == list(range(N))
    assert set(labelled_rows(dataset, seed=0, share=0.25)) < set(half)
    turned = dataset.select(np.arange(N)[::-1])
    np.testing.assert_array_equal(
        np.sort(turned.ids[labelled_rows(turned, seed=0, share=0.5)]), dataset.ids[half]
    )
    without = dataset.hide_labels(half)
    assert set(labelled_rows(without, seed=0, share=1.0)) == set(half)


@pytest.mark.parametrize(
    "target", [Values(2), Vectors(2), Tags(classes=4, positions=5), ABCD], ids=str
)
def test_labels_are_not_counted_by_class_without_classes(target):
    with pytest.raises(BadInput, match=r"^config.data.labels_per_class: the labels of arrays are "):
        labelled_rows(_dataset(target), seed=0, per_class=2, field="config.data")


def test_one_value_is_a_column():
    dataset = data.from_fields({"x": X}, VALUES[:, 0], target=Values())
    np.testing.assert_array_equal(dataset.labels, VALUES[:, :1].astype(np.float32))
    again = data.from_fields({"x": X}, VALUES[:, :1], target=Values(1))
    assert dataset.fingerprint == again.fingerprint


def test_the_classes_of_an_example_are_a_target():
    one = data.from_fields({"x": X}, CLASSES, classes=3)
    other = data.from_fields({"x": X}, CLASSES, target=Classes(3))
    assert (one.target, one.fingerprint) == (other.target, other.fingerprint)


def test_a_source_gives_values():
    examples = [{"x": X[i], "label": VALUES[i]} for i in range(N)]
    dataset = data.from_source(examples, inputs=["x"], target=Values(2))
    np.testing.assert_array_equal(dataset.labels, VALUES.astype(np.float32))
    images = np.zeros((N, 2, 2, 1), np.uint8)
    assert data.from_arrays(images, VALUES, target=Values(2)).target == Values(2)


def _with(row, value, array=VALUES):
    found = np.array(array)
    found[row] = value
    return found


@pytest.mark.parametrize(
    ("target", "labels", "line"),
    [
        (Values(2), _with((3, 1), np.nan), "the label of example 3 of arrays is not finite"),
        (Values(2), _with((4, 0), np.inf), "the label of example 4 of arrays is not finite"),
        (Values(2), _with((4, 0), 1e300), "the label of example 4 of arrays is not finite"),
        (Values(3), VALUES, r"shape \[12, 2\], and 3 values for 12 examples are \[12, 3\]"),
        (Values(2), VALUES[:3], r"shape \[3, 2\], and 2 values"),
        (Values(2), VALUES.astype(str), "give numbers"),
        (Vectors(2), _with(5, 0.0), "the label of example 5 of arrays is zero"),
        (Tags(4, 5), TAGS.astype(np.float32), r"float32\[12, 5\]; give the number of the class at"),
        (Tags(4, 6), TAGS, r"give the number of the class at each position, integers \[12, 6\]"),
        (Tags(3, 5), _with((2, 4), 3, TAGS * 0), r"label 3 of arrays is out of range.*\(example 2\)"),
        (ABCD, SAID[:, :4], r"int64\[12, 4\]; give the numbers of the symbols, integers \[12, 5\]"),
        (ABCD, _with((2, 0), 4, SAID), r"label 4 of arrays is out of range.*\(example 2\)"),
        (ABCD, _with((3, 1), -1, SAID), "the label of example 3 of arrays goes on behind -1"),
        (Transcripts(("a", "a"), 5), SAID, "alphabet of arrays: 'a' stands twice in it"),
        (Classes(2), CLASSES, r"label 2 of arrays is out of range.*\(example 2\)"),
    ],
)  # fmt: skip
def test_labels_that_are_none_are_refused(target, labels, line):
    with pytest.raises(BadInput, match=line) as caught:
        _dataset(target, labels)
    assert str(caught.value).startswith("data: ")
    assert "\n" not in str(caught.value)


def test_classes_and_a_target_are_one_too_many():
    with pytest.raises(BadInput, match="is given classes and target; give one of the two"):
        data.from_fields({"x": X}, CLASSES, classes=3, target=Classes(3))
    with pytest.raises(BadInput, match="needs the number of its classes; None is none"):
        data.from_fields({"x": X}, CLASSES)


def test_labels_in_another_dtype_than_the_target_says_are_refused():
    dataset = _dataset(Values(2))
    with pytest.raises(BadInput, match=r"a label of arrays is float64\[2\], and of 2 values it is"):
        dataclasses.replace(dataset, labels=dataset.labels.astype(np.float64))


@EVERY
def test_a_feed_brings_the_labels_and_those_of_partners(target):
    dataset = _dataset(target)
    partners = data.join_partners(dataset, lambda rows, epochs: rows[::-1], resident=True)
    where = {
        "seed": 0,
        "batch": 4,
        "share": slice(0, 4),
        "start": 0,
        "stop": 1,
        "dispatch_steps": 1,
    }
    ((_, feed),) = data.resident_feeds(N, join=partners, **where)
    resident = data.resident_arrays(dataset)
    taken = data.take(resident, {name: x[0] for name, x in feed.items()})
    np.testing.assert_array_equal(taken["label"], dataset.labels[taken["id"]])
    np.testing.assert_array_equal(taken["partner_label"], dataset.labels[taken["partner_id"]])
    ((_, streamed),) = data.stream_feeds(dataset, **where)
    np.testing.assert_array_equal(streamed["label"][0], taken["label"])
