"""Sequences of integers as bags of what occurs in them: the features of a text without a network."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from etils import epy
from jaxtyping import Int

with epy.lazy_imports():  # slow to import, and few runs weigh words
    from sklearn.feature_extraction import text as sklearn_text

Bags = Any
"""SciPy's sparse rows [n, kinds], float64."""


class Sequences(NamedTuple):
    """Integers of all examples, padded.

    Attributes:
      values: [n, most].
      lengths: how many of them count.
      without: integers that are left out, such as what begins and ends a text.
      second: where a second sequence begins in each; None where there is one.
    """

    values: Int[np.ndarray, "n most"]
    lengths: Int[np.ndarray, " n"]
    without: tuple[int, ...] = ()
    second: Int[np.ndarray, " n"] | None = None


def tfidf(
    train: Mapping[str, Sequences], test: Mapping[str, Sequences], *, longest: int = 2
) -> tuple[Bags, Bags]:
    """TF-IDF of the runs of one to `longest` integers: `(1 + ln count) * idf`, rows of length one.

    The inverse document frequency is smoothed, `ln((1 + n) / (1 + df)) + 1`, and, as the kinds that
    there are, of the training examples; what only the others have counts for nothing. By scikit-learn.

    Args:
      train: examples to learn from, by field: runs of two fields are of two kinds, and so are those of
        the two sequences of a field. No run is of both.
      test: the others, of the same fields.
      longest: run that is counted, at least 1.

    Reference: Salton & Buckley 1988, https://doi.org/10.1016/0306-4573(88)90021-0.
    """
    analyzer: Any = _as_it_is
    weigh = sklearn_text.TfidfVectorizer(analyzer=analyzer, sublinear_tf=True)
    return weigh.fit_transform(_runs(train, longest)), weigh.transform(_runs(test, longest))


def _as_it_is(example: Any) -> Any:
    return example


def _runs(sequences: Mapping[str, Sequences], longest: int) -> Sequence[list[tuple[Any, ...]]]:
    """What is counted of each example."""
    (n,) = {len(own.values) for own in sequences.values()}
    found: list[list[tuple[Any, ...]]] = [[] for _ in range(n)]
    for field, own in sequences.items():
        places = [np.zeros_like(own.lengths), own.lengths]
        if own.second is not None:
            places.insert(1, own.second)
        for part, (begins, ends) in enumerate(itertools.pairwise(places)):
            for runs, values, begin, end in zip(found, own.values, begins, ends, strict=True):
                kept = [value for value in values[begin:end].tolist() if value not in own.without]
                for size in range(1, longest + 1):
                    runs.extend(
                        (field, part, *run)
                        for run in zip(*(kept[i:] for i in range(size)), strict=False)
                    )
    return found
