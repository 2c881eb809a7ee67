import dataclasses

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from kdjax.data import from_arrays, labelled_rows
from kdjax.types import BadInput

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(256, size=(8, 2, 2, 1), dtype=np.uint8)
LABELS = np.array([0, 1, 2, 0, 1, 2, 0, -1])


def _dataset(**changes):
    return from_arrays(**{"images": IMAGES, "labels": LABELS, "classes": 3, **changes})


def test_arrays():
    dataset = _dataset(name="mine")
    assert len(dataset) == 8
    assert (dataset.name, dataset.classes, dataset.image_shape) == ("mine", 3, (2, 2, 1))
    assert (dataset.ids.dtype, dataset.labels.dtype) == (np.uint32, np.int32)
    np.testing.assert_array_equal(dataset.ids, np.arange(8))
    np.testing.assert_array_equal(dataset.labels, LABELS)
    np.testing.assert_array_equal(dataset.images(), IMAGES)
    np.testing.assert_array_equal(dataset.read(np.array([3, 0, 3])), IMAGES[[3, 0, 3]])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ids": np.array([0, 1, 2, 3, 4, 5, 6, 3], np.uint32)}, "ids of arrays are not unique"),
        ({"labels": np.array([0, 1, 2, 3, 0, 0, 0, 0])}, "label 3 of arrays is out of range; 3 cl"),
        ({"labels": np.array([0, 1, -2, 0, 0, 0, 0, 0])}, "label -2 of arrays is out of range"),
        ({"classes": 2}, "label 2 of arrays is out of range; 2 classes are 0 to 1"),
        ({"images": IMAGES[:0], "labels": LABELS[:0]}, "arrays has no examples"),
    ],
)
def test_faults_are_named(changes, message):
    with pytest.raises(BadInput, match=f"^data: {message}"):
        _dataset(**changes)


def test_select_and_hide_labels_compose():
    ids = np.arange(100, 108, dtype=np.uint32)
    rows = np.array([6, 2, 5, 0])
    chosen = _dataset(ids=ids).select(rows)
    assert chosen.ids.tolist() == [106, 102, 105, 100]
    assert chosen.labels.tolist() == [0, 2, 2, 0]
    np.testing.assert_array_equal(chosen.images(), IMAGES[rows])

    hidden = chosen.hide_labels(np.array([1, 3]))
    assert hidden.labels.tolist() == [-1, 2, -1, 0]
    assert chosen.labels.tolist() == [0, 2, 2, 0]
    np.testing.assert_array_equal(hidden.ids, chosen.ids)
    np.testing.assert_array_equal(hidden.images(), IMAGES[rows])

    again = hidden.select(np.array([3, 0]))
    assert again.ids.tolist() == [100, 106]
    assert again.labels.tolist() == [0, -1]
    np.testing.assert_array_equal(again.read(np.array([1])), IMAGES[[6]])


def test_selecting_nothing_or_one_row_twice_is_refused():
    with pytest.raises(BadInput, match="no examples"):
        _dataset().select(np.zeros(0, np.int64))
    with pytest.raises(BadInput, match="not unique"):
        _dataset().select(np.array([1, 1]))


def test_the_fingerprint_is_of_the_content():
    plain = _dataset().fingerprint
    # Not of the name, the number of classes, the memory layout, or the dtype labels came in.
    same = [
        _dataset(name="other"),
        _dataset(classes=4),
        _dataset(images=np.asfortranarray(IMAGES)),
        _dataset(labels=LABELS.astype(np.int8)),
        _dataset(ids=np.arange(8, dtype=np.uint32)),
    ]
    assert {dataset.fingerprint for dataset in same} == {plain}

    pixel, label = IMAGES.copy(), LABELS.copy()
    pixel[7, 1, 1, 0] ^= 1
    label[7] = 0
    changed = [
        _dataset(images=pixel),
        _dataset(images=IMAGES.reshape(8, 4, 1, 1)),
        _dataset(labels=label),
        _dataset(ids=np.arange(1, 9, dtype=np.uint32)),
        _dataset().select(np.array([0, 1])),
        _dataset().select(np.array([1, 0])),
        _dataset().hide_labels(np.array([0, 1])),
        _dataset().hide_labels(np.array([0])),
        _dataset(images=IMAGES[::-1].copy()),
    ]
    assert len({plain, *(dataset.fingerprint for dataset in changed)}) == len(changed) + 1
    # And it is the same in every process.
    assert _dataset(images=np.zeros_like(IMAGES)).fingerprint == "55ef4861c0dc0063"


def _many(order=slice(None), seed=0):
    rng = np.random.default_rng(seed)
    ids = rng.permutation(1000)[:60].astype(np.uint32)
    labels = np.arange(60) % 4
    images = np.zeros((60, 1, 1, 1), np.uint8)
    return from_arrays(images[order], labels[order], classes=4, ids=ids[order])


@settings(deadline=None, max_examples=20)
@given(per_class=st.integers(1, 15), seed=st.integers(0, 2**31))
def test_labelled_rows_of_each_class(per_class, seed):
    dataset = _many()
    rows = labelled_rows(dataset, per_class=per_class, seed=seed)
    assert len(set(rows)) == len(rows)
    assert np.bincount(dataset.labels[rows], minlength=4).tolist() == [per_class] * 4
    assert (np.diff(rows) > 0).all()
    fewer = labelled_rows(dataset, per_class=max(1, per_class - 1), seed=seed)
    assert set(fewer) <= set(rows)


@settings(deadline=None, max_examples=20)
@given(order=st.permutations(range(60)), seed=st.integers(0, 2**31))
def test_labelled_ids_do_not_depend_on_the_order(order, seed):
    shuffled = _many(np.array(order))
    found = shuffled.ids[labelled_rows(shuffled, per_class=3, seed=seed)]
    plain = _many()
    expected = plain.ids[labelled_rows(plain, per_class=3, seed=seed)]
    assert set(found) == set(expected)


def test_labelled_rows_depend_on_the_seed():
    choices = {tuple(labelled_rows(_many(), per_class=3, seed=seed)) for seed in range(10)}
    assert len(choices) == 10


@pytest.mark.parametrize("seed", [0, 1, 2**40 + 3])
def test_labelled_rows_are_those_of_one_generator_an_id(seed):
    """Seeds of old runs choose what they chose."""
    dataset = _many()
    score = np.array(
        [np.random.Philox(key=[seed, int(id)]).random_raw() for id in dataset.ids], np.uint64
    )
    rows = [np.flatnonzero(dataset.labels == label) for label in range(4)]
    expected = np.sort(np.concatenate([r[np.argsort(score[r], kind="stable")[:4]] for r in rows]))
    np.testing.assert_array_equal(labelled_rows(dataset, per_class=4, seed=seed), expected)


def test_a_share_of_each_class_and_one_at_least():
    dataset, chosen = _many(), []
    for share, count in ((0.01, 1), (0.1, 2), (0.5, 8), (1.0, 15)):  # of 15, rounded
        rows = labelled_rows(dataset, share=share, seed=3)
        assert np.bincount(dataset.labels[rows]).tolist() == [count] * 4
        np.testing.assert_array_equal(rows, labelled_rows(dataset, per_class=count, seed=3))
        assert set(chosen) < set(rows)
        chosen = rows
    np.testing.assert_array_equal(labelled_rows(dataset, seed=3), np.arange(60))


def test_labelled_rows_never_choose_the_unlabelled():
    hidden = _many().hide_labels(np.arange(20))
    assert labelled_rows(hidden, per_class=5, seed=0).tolist() == list(range(20))


def test_labelled_rows_refuse_what_is_not_there():
    with pytest.raises(BadInput, match=r"^data\.labels_per_class: class 0 of arrays has 15 examp"):
        labelled_rows(_many(), per_class=16, seed=0)
    for none in (0, -1):
        with pytest.raises(BadInput, match=rf"^data\.labels_per_class: {none} is not at least 1"):
            labelled_rows(_many(), per_class=none, seed=0)
    for outside in (0.0, -0.1, 1.1):
        with pytest.raises(BadInput, match=rf"^here\.labels_share: {outside} is not in \(0, 1\]"):
            labelled_rows(_many(), share=outside, seed=0, field="here")
    with pytest.raises(BadInput, match=r"^data\.labels_share: labels_per_class is given, too"):
        labelled_rows(_many(), share=0.1, per_class=1, seed=0)


def test_a_dataset_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        _dataset().labels = LABELS


def test_held_reads_once():
    calls = []

    def read(rows):
        calls.append(len(rows))
        return np.zeros((len(rows), 2, 2, 1), np.uint8) + rows[:, None, None, None].astype(np.uint8)

    dataset = dataclasses.replace(
        from_arrays(np.zeros((5, 2, 2, 1), np.uint8), np.zeros(5, int), classes=1), read=read
    ).held()
    assert not calls
    for _ in range(3):
        np.testing.assert_array_equal(dataset.select(np.array([3, 1])).images()[:, 0, 0, 0], [3, 1])
    assert calls == [5]
