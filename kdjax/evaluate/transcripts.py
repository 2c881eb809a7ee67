"""How far what was recognised is from what was said: edits, word and character error rates."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np


class Edits(NamedTuple):
    """What makes a hypothesis of a reference.

    Attributes:
      insertions: units of the hypothesis that the reference has not.
      deletions: units of the reference that the hypothesis has not.
      substitutions: units of the reference in whose place the hypothesis has another.
    """

    insertions: int
    deletions: int
    substitutions: int

    @property
    def total(self) -> int:
        """The edit distance."""
        return sum(self)


def edits(reference: Sequence[Any], hypothesis: Sequence[Any]) -> Edits:
    """The least edits that make the hypothesis of the reference, each counting as one.

    Of several such ways that with the fewest insertions and deletions, so that the three numbers are
    determined, too.

    Args:
      reference: what was said, units that can be told apart: words, characters, numbers.
      hypothesis: what was recognised, likewise.

    Reference: Levenshtein 1966, Binary codes capable of correcting deletions, insertions and reversals;
    by the rows of Wagner and Fischer 1974, https://doi.org/10.1145/321796.321811.
    """
    number: dict[Any, int] = {}
    said, heard = (
        np.asarray([number.setdefault(unit, len(number)) for unit in units], np.int64)
        for units in (reference, hypothesis)
    )
    n, m = len(said), len(heard)
    # A substitution costs `whole`, an insertion or a deletion one more: fewer edits come first, then
    # fewer of the latter, of which there are n + m at most.
    whole = n + m + 1
    other = whole + 1
    steps = other * np.arange(m + 1)
    costs = steps
    for unit in said:
        kept = costs[:-1] + whole * (heard != unit)
        best = np.concatenate([costs[:1] + other, np.minimum(kept, costs[1:] + other)])
        costs = np.minimum.accumulate(best - steps) + steps  # insertions, along the row
    total, one_sided = divmod(int(costs[-1]), whole)
    inserted = (one_sided + m - n) // 2
    return Edits(inserted, one_sided - inserted, total - one_sided)


def error_rate(references: Sequence[Sequence[Any]], hypotheses: Sequence[Sequence[Any]]) -> float:
    """All edits over all units of the references: the WER of words, the CER of characters.

    It is above 1 where more is inserted than was said.

    Args:
      references: what was said, of each example.
      hypotheses: what was recognised.

    Raises:
      ValueError: there is not one hypothesis for each reference, or nothing was said.
    """
    if len(references) != len(hypotheses):
        raise ValueError(f"{len(references)} references and {len(hypotheses)} hypotheses")
    units = sum(map(len, references))
    if not units:
        raise ValueError("the references are empty: an error rate is of what was said")
    pairs = zip(references, hypotheses, strict=True)
    return sum(edits(*pair).total for pair in pairs) / units


def words(text: str) -> list[str]:
    """What stands between the spaces of a transcript."""
    return text.split()


def characters(text: str) -> list[str]:
    """Those of a transcript, a single space between words and none at its ends."""
    return list(" ".join(text.split()))
