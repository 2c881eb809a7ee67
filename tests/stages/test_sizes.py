"""Batches and views against the images, before anything is trained."""

import pytest

from kdjax.types import BadInput
from tests.stages.conftest import LINE

AT = r"^config\.stages\."


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"stages__pretrain__batch": 288}, AT + r"pretrain\.batch: 288 of 287 training examples"),
        ({"stages__teacher__batch": 288}, AT + r"teacher\.batch: 288 of 287"),
        ({"stages__student__batch": 10**6}, AT + r"student\.batch: 1000000 of 287"),
        (
            {"stages__pretrain__views__cutout": 9},
            AT + r"pretrain\.views\.cutout: 9 pixels .* 8 x 8",
        ),
        (
            {"stages__teacher__views__shift": 8},
            AT + r"teacher\.views\.shift: 8 pixels leave nothing",
        ),
        ({"stages__cache__recipe__cutout": 9}, AT + r"cache\.recipe\.cutout: 9 pixels"),
        (
            {"data__mean": [0.1, 0.2, 0.3]},
            r"^config\.data\.mean: 3 numbers for images of 1 channels",
        ),
        ({"data__std": [0.1, 0.2]}, r"^config\.data\.std: 2 numbers for images of 1 channels"),
        ({"data__test_split": "tset"}, r"^config\.data\.test_split: split 'tset' of digits"),
        ({"data__train_split": "[]"}, r"^config\.data\.train_split: split '\[\]' of digits"),
    ],
)
def test_what_is_larger_than_what_there_is(line, changes, said):
    with pytest.raises(BadInput, match=said):
        line.plan(**changes)


def test_what_just_fits(line):
    line.plan(stages__pretrain__batch=287, stages__pretrain__views__cutout=8)
    # Few labels, 30 here: each view is its own, so that a batch may hold an example more than once.
    line.plan(stages__teacher__batch=64)
    # Pixels are those of the teacher's side, wherever that is said.
    line.plan(stages__teacher__views__size=16, stages__cache__recipe__cutout=16)
    assert LINE["stages"]["teacher"]["views"].get("size") is None
