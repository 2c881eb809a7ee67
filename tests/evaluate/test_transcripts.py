"""Edits by hand, and against a recursion over all ways to align two short sequences."""

import functools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdjax.evaluate import Edits, characters, edits, error_rate, words


def slow_edits(reference, hypothesis):
    """Every way to align them, unit by unit: the least (edits, insertions and deletions)."""

    @functools.cache
    def ways(i, j):
        """`(insertions, deletions, substitutions)` of all ways to align what is left."""
        if i == len(reference) and j == len(hypothesis):
            return frozenset([(0, 0, 0)])
        found = set()
        if j < len(hypothesis):
            found |= {(a + 1, b, c) for a, b, c in ways(i, j + 1)}
        if i < len(reference):
            found |= {(a, b + 1, c) for a, b, c in ways(i + 1, j)}
        if i < len(reference) and j < len(hypothesis):
            other = int(reference[i] != hypothesis[j])
            found |= {(a, b, c + other) for a, b, c in ways(i + 1, j + 1)}
        return frozenset(found)

    return Edits(*min(ways(0, 0), key=lambda way: (sum(way), way[0] + way[1])))


@pytest.mark.parametrize(
    ("reference", "hypothesis", "found"),
    [
        ("", "", (0, 0, 0)),
        ("abc", "abc", (0, 0, 0)),
        ("abc", "", (0, 3, 0)),
        ("", "ab", (2, 0, 0)),
        ("abc", "axc", (0, 0, 1)),
        ("abc", "ac", (0, 1, 0)),
        ("abc", "abxc", (1, 0, 0)),
        ("ab", "ba", (0, 0, 2)),  # and not an insertion and a deletion, which are two edits, too
        ("abcd", "bcda", (1, 1, 0)),
        ("kitten", "sitting", (1, 0, 2)),
        ("saturday", "sunday", (0, 2, 1)),
        ("aaa", "a", (0, 2, 0)),
        (
            ["the", "cat", "sat", "on", "the", "mat"],
            ["the", "cat", "sat", "mat", "on", "the"],
            (1, 1, 0),
        ),
        ((3, 1, 4, 1, 5), (1, 4, 1, 5, 9), (1, 1, 0)),
    ],
)
def test_edits_by_hand(reference, hypothesis, found):
    assert edits(reference, hypothesis) == Edits(*found)
    assert edits(reference, hypothesis).total == sum(found)


_SHORT = st.lists(st.sampled_from("abc"), max_size=6)


@given(_SHORT, _SHORT)
def test_edits_are_the_least_of_all_ways(reference, hypothesis):
    assert edits(reference, hypothesis) == slow_edits(tuple(reference), tuple(hypothesis))


_LONG = st.lists(st.integers(0, 4), max_size=30)


@given(_LONG, _LONG, _LONG)
def test_edits_are_a_distance(a, b, c):
    there, back = edits(a, b), edits(b, a)
    assert there == Edits(back.deletions, back.insertions, back.substitutions)
    assert (there.total == 0) == (a == b)
    assert edits(a, c).total <= there.total + edits(b, c).total
    assert abs(len(a) - len(b)) <= there.total <= max(len(a), len(b))
    assert there.insertions - there.deletions == len(b) - len(a)


def test_an_error_rate_is_of_all_units_together():
    references = [words(" one  two three "), words("four")]
    hypotheses = [words("one too three"), words("four five six")]
    assert error_rate(references, hypotheses) == 3 / 4
    said = [characters("on  to "), characters("a")]
    assert said == [list("on to"), ["a"]]
    assert error_rate(said, [list("onto"), ["a"]]) == 1 / 6
    assert error_rate([["one"]], [["two", "three", "four"]]) == 3.0  # above 1


def test_what_has_no_error_rate():
    with pytest.raises(ValueError, match="2 references and 1 hypotheses"):
        error_rate([["a"], ["b"]], [["a"]])
    with pytest.raises(ValueError, match="the references are empty"):
        error_rate([[], []], [["a"], []])


def test_edits_tell_units_apart_by_equality():
    assert edits([1, "1", (1,)], [1, "1", (1,)]).total == 0
    assert edits([1], ["1"]) == Edits(0, 0, 1)
