"""Transcripts as labels and back."""

import numpy as np
import pytest

from kdjax import data
from kdjax.data import Transcripts, transcripts_of
from kdjax.types import BadInput


def read(texts, **how):
    where = [f"{i}.wav" for i in range(len(texts))]
    return transcripts_of(texts, where, **{"alphabet": None, "name": "talks", **how})


def test_characters_in_the_order_of_the_alphabet():
    labels, target = read(["bad  ab ", None, "a", "  "])
    assert target == Transcripts((" ", "a", "b", "d"), 6)
    np.testing.assert_array_equal(labels, [[2, 1, 3, 0, 1, 2], [-1] * 6, [1] + [-1] * 5, [-1] * 6])
    np.testing.assert_array_equal(target.shown(labels), [True, False, True, False])
    assert [target.text(row) for row in labels] == ["bad ab", "", "a", ""]
    assert str(target) == "transcripts of up to 6 of 4 characters"
    assert target.facts()["alphabet"] == [" ", "a", "b", "d"]
    given, asked = read(["bad  ab "], alphabet=["d", "b", "a", " ", "z"])
    assert asked.alphabet == ("d", "b", "a", " ", "z")
    assert asked.text(given[0]) == "bad ab"


def test_words():
    labels, target = read(["three one  three", "", "one"], unit="words")
    assert target == Transcripts(("one", "three"), 3, "words")
    np.testing.assert_array_equal(labels, [[1, 0, 1], [-1] * 3, [0, -1, -1]])
    assert target.text(labels[0]) == "three one three"


def test_a_letter_is_one_however_it_is_written():
    labels, target = read(["\u00e9", "e\u0301"])
    assert target.alphabet == ("\u00e9",)
    np.testing.assert_array_equal(labels, [[0], [0]])


@pytest.mark.parametrize(
    ("texts", "how", "line"),
    [
        (["ab", "xb"], {"alphabet": ["a", "b"]}, "alphabet: 'x' of the transcript of 1.wav is not one "
         "of its 2 characters; add it, or change the transcript"),
        (["a b"], {"alphabet": ["a", "b"]}, "alphabet: ' ' of the transcript of 0.wav"),
        (["one two"], {"alphabet": ["one"], "unit": "words"}, "alphabet: 'two' of the transcript of "
         "0.wav is not one of its 1 words"),
        (["", None], {}, "alphabet: talks has no transcript to take it from; give it"),
        (["a"], {"alphabet": []}, "alphabet: it has no symbol"),
        (["a"], {"alphabet": ["a", "b", "a"]}, "alphabet: 'a' stands twice in it"),
        (["a"], {"alphabet": ["ab"]}, "alphabet: 'ab' is not a single character"),
        (["a"], {"alphabet": ["a", "e\u0301"]}, "is not a single character"),
        (["a"], {"alphabet": ["a", ""]}, "alphabet: '' is not a single character"),
        (["a"], {"alphabet": ["a b"], "unit": "words"}, "alphabet: 'a b' is not a single word"),
        (["a"], {"alphabet": [" "], "unit": "words"}, "alphabet: a space is no word"),
    ],
)  # fmt: skip
def test_what_is_no_alphabet_or_not_in_it_is_one_line(texts, how, line):
    with pytest.raises(BadInput) as caught:
        read(texts, **how)
    assert line in str(caught.value)
    assert str(caught.value).startswith("alphabet: ")
    assert "\n" not in str(caught.value)


def test_transcripts_are_the_labels_of_any_arrays():
    labels, target = read(["ab", "b", None])
    sounds = [np.ones(n, np.int16) for n in (5, 3, 4)]
    dataset = data.from_fields({"audio": sounds}, labels, target=target, ragged={"audio": 8})
    assert dataset.shown.tolist() == [True, True, False]
    assert dataset.hide_labels(np.array([1])).shown.tolist() == [False, True, False]
