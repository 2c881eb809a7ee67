import dataclasses

import hypothesis.strategies as st
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

from kdjax.data import Classes, from_arrays, labelled_rows
from kdjax.types import BadInput

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(256, size=(8, 2, 2, 1), dtype=np.uint8)
LABELS = np.array([0, 1, 2, 0, 1, 2, 0, -1])


def _dataset(**changes):
    return from_arrays(**{"images": IMAGES, "labels": LABELS, "classes": 3, **changes})


def test_arrays():
    dataset = _dataset(name="mine")
    assert len(dataset) == 8
    assert (dataset.name, dataset.target, dataset.fields["image"].shape) == (
        "mine",
        Classes(3),
        (2, 2, 1),
    )
    assert (dataset.ids.dtype, dataset.labels.dtype) == (np.uint32, np.int32)
    np.testing.assert_array_equal(dataset.ids, np.arange(8))
    np.testing.assert_array_equal(dataset.labels, LABELS)
    np.testing.assert_array_equal(dataset.inputs()["image"], IMAGES)
    np.testing.assert_array_equal(dataset.read(np.array([3, 0, 3]))["image"], IMAGES[[3, 0, 3]])


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
    np.testing.assert_array_equal(chosen.inputs()["image"], IMAGES[rows])

    hidden = chosen.hide_labels(np.array([1, 3]))
    assert hidden.labels.tolist() == [-1, 2, -1, 0]
    assert chosen.labels.tolist() == [0, 2, 2, 0]
    np.testing.assert_array_equal(hidden.ids, chosen.ids)
    np.testing.assert_array_equal(hidden.inputs()["image"], IMAGES[rows])

    again = hidden.select(np.array([3, 0]))
    assert again.ids.tolist() == [100, 106]
    assert again.labels.tolist() == [0, -1]
    np.testing.assert_array_equal(again.read(np.array([1]))["image"], IMAGES[[6]])


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
        values = rows[:, None, None, None].astype(np.uint8)
        return {"image": np.zeros((len(rows), 2, 2, 1), np.uint8) + values}

    dataset = dataclasses.replace(
        from_arrays(np.zeros((5, 2, 2, 1), np.uint8), np.zeros(5, int), classes=1), read=read
    ).held()
    assert not calls
    for _ in range(3):
        np.testing.assert_array_equal(
            dataset.select(np.array([3, 1])).inputs()["image"][:, 0, 0, 0], [3, 1]
        )
    assert calls == [5]


_LISTS = IMAGES.tolist()


@pytest.mark.parametrize(
    ("changes", "message"),
    {
        "more labels": (
            {"labels": np.zeros(9, int)},
            "arrays has 9 labels for 8 images; give one each",
        ),
        "one-hot": (
            {"labels": np.eye(8, dtype=int)},
            r"shape \(8, 8\); if .* labels\.argmax\(-1\)",
        ),
        "a column": ({"labels": LABELS[:, None]}, r"shape \(8, 1\); give labels\[:, 0\]"),
        "a scalar": ({"labels": 1}, r"labels of arrays have shape \(\)"),
        "ragged": ({"labels": [[1], [1, 2]]}, "labels of arrays are no array"),
        "halves": ({"labels": np.full(8, 0.9)}, "labels of arrays are float64, not integers"),
        "nan": ({"labels": np.full(8, np.nan)}, "labels of arrays are float64, not integers"),
        "bool": ({"labels": np.ones(8, bool)}, "labels of arrays are bool, not integers"),
        "text": ({"labels": ["cat"] * 8}, "labels of arrays are <U3, not integers"),
        "objects": (
            {"labels": np.array([0] * 8, object)},
            "labels of arrays are object, not integers",
        ),
        "a label of 2**32": (
            {"labels": LABELS + 2**32},
            "label 4294967296 of arrays is out of range",
        ),
        "a label of 2**64 - 1": (
            {"labels": np.full(8, 2**64 - 1, np.uint64)},
            "label 18446744073709551615 of arrays is out of range",
        ),
        "no classes": ({"classes": None}, "arrays needs the number of its classes; None is none"),
        "half a class": ({"classes": 2.5}, "arrays needs the number of its classes; 2.5 is none"),
        "zero classes": ({"classes": 0, "labels": -np.ones(8, int)}, "arrays has 0 classes"),
        "grey": (
            {"images": IMAGES[..., 0]},
            r"shape \(8, 2, 2\), without .* give images\[\.\.\., None",
        ),
        "flat": (
            {"images": IMAGES.reshape(8, 4)},
            r"images of arrays have shape \(8, 4\), not \(exa",
        ),
        "no pixels": ({"images": np.zeros((8, 0, 2, 1), np.uint8)}, "there is nothing to see"),
        "to 255": (
            {"images": IMAGES.astype(np.float32)},
            r"are float32, not uint8 .*; give images\.round\(\)\.astype\(np\.uint8\)",
        ),
        "to 1": (
            {"images": IMAGES / 255},
            r"give \(images \* 255\)\.round\(\)\.astype\(np\.uint8\)",
        ),
        "to 1000": ({"images": IMAGES * 10.0}, r"they go from .* scale them"),
        "around 0": ({"images": IMAGES / 127 - 1}, "they go from -.* to .*; shift and scale"),
        "not finite": ({"images": np.full((8, 2, 2, 1), np.inf)}, "some are not finite"),
        "mask": ({"images": IMAGES > 9}, r"are bool.* give images\.astype\(np\.uint8\) \* 255"),
        "lists": ({"images": _LISTS}, r"are int64, .* give images\.astype\(np\.uint8\)"),
        "negative": ({"images": IMAGES.astype(int) - 256}, r"they go from -.* shift and scale"),
        "deep": (
            {"images": IMAGES.astype(np.uint16) * 257},
            r"\(images >> 8\)\.astype\(np\.uint8\)",
        ),
        "image objects": ({"images": IMAGES.astype(object)}, "images of arrays are object"),
        "two ids": ({"ids": np.arange(2)}, r"ids of arrays have shape \(2,\) for 8 images"),
        "ids in a column": ({"ids": np.arange(8)[:, None]}, r"ids of arrays have shape \(8, 1\)"),
        "names": (
            {"ids": list("abcdefgh")},
            "ids of arrays are <U1, .* kdjax.data.unique_ids makes",
        ),
        "float ids": ({"ids": np.arange(8.0)}, "ids of arrays are float64, not integers"),
        "negative ids": ({"ids": np.arange(8) - 1}, r"id -1 of arrays is not in \[0, 2\*\*32\)"),
        "ids of 64 bits": ({"ids": np.arange(8) + 2**32}, r"id 4294967303 of arrays is not in \[0"),
        "ids twice": ({"ids": np.zeros(8, int)}, "ids of arrays are not unique"),
    }.values(),
)
def test_what_does_not_fit_is_refused(changes, message):
    with pytest.raises(BadInput, match=f"^data: .*{message}") as caught:
        _dataset(**changes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"labels": LABELS.tolist()},
        {"labels": LABELS.astype(np.int8)},
        {"labels": np.array(LABELS, ">i8")},
        {"labels": np.repeat(LABELS, 2)[::2]},
        {"labels": jnp.asarray(LABELS)},
        {"images": jnp.asarray(IMAGES)},
        {"images": np.asfortranarray(IMAGES)},
        {"images": np.repeat(IMAGES, 2, axis=1)[:, ::2]},
        {"images": list(IMAGES)},
        {"ids": range(8)},
        {"ids": np.arange(8, dtype=np.uint64)},
        {"classes": np.int64(3)},
    ],
)
def test_what_means_the_same_is_the_same(changes):
    found, plain = _dataset(**changes), _dataset()
    np.testing.assert_array_equal(found.inputs()["image"], IMAGES)
    np.testing.assert_array_equal(found.labels, LABELS)
    np.testing.assert_array_equal(found.ids, np.arange(8))
    assert found.fingerprint == plain.fingerprint


def test_a_later_change_of_the_arrays_is_not_one_of_the_dataset():
    images, labels, ids = IMAGES.copy(), LABELS.copy(), np.arange(8, dtype=np.uint32)
    dataset = from_arrays(images, labels, classes=3, ids=ids)
    before = dataset.fingerprint
    images[:], labels[:], ids[:] = 0, 0, 7
    np.testing.assert_array_equal(dataset.inputs()["image"], IMAGES)
    np.testing.assert_array_equal(dataset.labels, LABELS)
    np.testing.assert_array_equal(dataset.ids, np.arange(8))
    assert dataset.select(np.arange(8)).fingerprint == _dataset().select(np.arange(8)).fingerprint
    assert before == _dataset().fingerprint
    for own in (dataset.labels, dataset.ids):
        with pytest.raises(ValueError, match="read-only"):
            own[0] = 1


def test_images_on_the_disk_stay_there(tmp_path):
    np.save(tmp_path / "images.npy", IMAGES)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    dataset = _dataset(images=mapped)
    np.testing.assert_array_equal(dataset.inputs()["image"], IMAGES)
    assert dataset.fingerprint == _dataset().fingerprint


def test_a_row_that_is_not_there_is_none():
    for rows in ([8], [-1], [0, 2**40]):
        with pytest.raises(IndexError, match="of arrays, which has 8 examples"):
            _dataset().select(np.array(rows))
        with pytest.raises(IndexError, match="of arrays, which has 8 examples"):
            _dataset().hide_labels(np.array(rows))


def test_a_label_that_is_hidden_is_no_part_of_the_fingerprint():
    """Whatever stands there: the images, the ids and the labels that are shown are."""
    other = LABELS.copy()
    other[[1, 4, 5]] = [2, 0, 0]
    shown, rows = np.array([0, 2, 3, 6, 7]), np.array([6, 1, 0])
    one, two = (_dataset(labels=labels).hide_labels(shown) for labels in (LABELS, other))
    assert one.fingerprint == two.fingerprint
    assert one.select(rows).fingerprint == two.select(rows).fingerprint
    assert one.fingerprint == _dataset(labels=one.labels).fingerprint
    assert _dataset().fingerprint != _dataset(labels=other).fingerprint != one.fingerprint
    assert _dataset().hide_labels(np.arange(8)).fingerprint == _dataset().fingerprint
