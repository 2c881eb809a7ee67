import itertools

import numpy as np
import pytest
from sklearn.datasets import load_digits

from kdjax.data import Classes, digits
from kdjax.types import BadInput


def test_splits_are_those_that_are_documented():
    train, test = digits("train"), digits("test")
    assert (len(train), len(test)) == (1437, 360)
    assert np.bincount(test.labels).tolist() == [36] * 10
    assert sorted([*train.ids, *test.ids]) == list(range(1797))
    assert (train.target, train.fields["image"].shape) == (Classes(10), (8, 8, 1))
    # Pinned: another split is another benchmark.
    assert train.ids[:8].tolist() == [283, 1653, 1432, 1381, 1467, 837, 263, 758]
    assert test.ids[:8].tolist() == [1051, 998, 162, 670, 664, 1492, 185, 322]
    assert (train.fingerprint, test.fingerprint) == ("64469120fdd2c007", "0f7cbaf096eb4b4f")


def test_an_id_is_the_row_of_scikit_learn():
    data = load_digits()
    for dataset in (digits("train"), digits("test")):
        np.testing.assert_array_equal(dataset.labels, data.target[dataset.ids])
        images = dataset.inputs()["image"]
        assert images.dtype == np.uint8
        # Sixteen grey levels spread over all of uint8.
        levels = np.round(images[..., 0].astype(float) * 16 / 255)
        np.testing.assert_array_equal(levels, data.images[dataset.ids])
        assert (images.min(), images.max()) == (0, 255)


def test_cuts_and_joins():
    train, test = digits("train"), digits("test")
    first, rest = digits("train[:80%]"), digits("train[80%:]")
    assert len(first) == round(0.8 * 1437)
    assert len(digits("train[10:13]")) == 3
    assert len(digits("train[-5:]")) == 5
    np.testing.assert_array_equal(digits("train+test").ids, [*train.ids, *test.ids])
    np.testing.assert_array_equal(digits("train[80%:]+test").ids, [*rest.ids, *test.ids])
    images = digits("train[:2]+test[:1]").inputs()["image"]
    np.testing.assert_array_equal(images[2], digits("test[:1]").inputs()["image"][0])
    assert not set(first.ids) & set(rest.ids)


@pytest.mark.parametrize("split", ["train", "test"])
def test_cuts_are_a_partition_in_the_order_of_the_whole(split):
    whole = digits(split).ids.tolist()
    for points in ([10], [50], [5, 30, 31, 90]):
        ends = ["", *(f"{p}%" for p in points), ""]
        cuts = [digits(f"{split}[{a}:{b}]").ids.tolist() for a, b in itertools.pairwise(ends)]
        assert sorted(id for cut in cuts for id in cut) == sorted(whole)
        for cut in cuts:
            assert cut == sorted(cut, key=whole.index)
        joined = "+".join(f"{split}[{a}:{b}]" for a, b in itertools.pairwise(ends))
        assert digits(joined).ids.tolist() == [id for cut in cuts for id in cut]
    assert digits(f"{split}[:100%]").ids.tolist() == whole


@pytest.mark.parametrize(
    "split",
    ["train[:5%]", "train[:20]", "train[95%:]", "train[40%:45%]", "train[-30:]", "test[:10%]"],
)
def test_a_cut_has_its_share_of_each_class(split):
    """`train[:5%]` once had none of the zeros, the threes and the sixes."""
    target = load_digits().target
    cut, whole = digits(split).ids, digits(split.partition("[")[0]).ids
    expected = np.bincount(target[whole]) * len(cut) / len(whole)
    assert (np.abs(np.bincount(target[cut], minlength=10) - expected) <= 2).all()
    if split in ("train[:5%]", "train[:20]", "test[:10%]"):  # from the start: within one
        assert (np.abs(np.bincount(target[cut], minlength=10) - expected) <= 1).all()


@pytest.mark.parametrize(
    ("split", "reason"),
    [
        ("validation", "Unknown split 'validation'. Should be one of .'train', 'test'."),
        ("train[:2000]", "incompatible with 1437 examples"),
        ("train[", "Error parsing split"),
        ("", "Error parsing split"),
        ("train[5:5]", "has no examples"),
        ("train+train", "not unique"),
    ],
)
def test_a_split_that_is_not_there_is_named(split, reason):
    with pytest.raises(BadInput, match=reason) as caught:
        digits(split)
    assert split in str(caught.value)
    assert "\n" not in str(caught.value)
