"""Which values an example has."""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar, Literal

import numpy as np
from jaxtyping import Array, Float

from kdjax import evaluate, losses, report, teacher
from kdjax.data import Target, Values
from kdjax.report import Score
from kdjax.tasks.base import counted
from kdjax.tasks.vectors import OfVectors


@dataclasses.dataclass(frozen=True, kw_only=True)
class Regression(OfVectors):
    """Which values an example has: numbers, learned by their squared error.

    The error is that of the numbers as they are: targets of a scale far from one, or of several scales,
    are standardized by the source of the data, which knows how to turn the answers back.

    A target that is hidden is NaN: its loss is zero, and no part of a mean (`labelled`). Scores are of
    examples that have a target, and raise where one has none.

    Attributes:
      dim: how many.
    """

    target: ClassVar[type[Target]] = Values
    output: ClassVar[str] = "values"
    loss: ClassVar[str] = "mse"
    primary: ClassVar[str] = "mse"
    losses_of: ClassVar[Mapping[str, str]] = {
        "labels": "the mean squared error",
        "predictions": "the mean squared difference from what the whole model says",
        "teacher": "the mean squared difference from what the cached teacher says",
    }

    name: Literal["regression"] = "regression"
    dim: int = 1

    def distance(
        self, answer: Float[Array, "batch dim"], reference: Float[Array, "batch dim"]
    ) -> Float[Array, " batch"]:
        """Mean over the values of the squared difference."""
        return losses.embedding_mse(answer, reference)

    def signal(
        self, dtype: str, *, positions: int | None = None
    ) -> teacher.Vector | teacher.Positions:
        """The values."""
        return teacher.Values(dim=self.dim, dtype=dtype)

    def scores(
        self, answers: Float[np.ndarray, "n dim"], labels: Float[np.ndarray, "n dim"]
    ) -> Mapping[str, Score]:
        """Mean squared error, mean absolute error, R² and correlations as the mean over the values.

        The errors are means over examples, whose interval is Student's t. R² is a ratio, which has none
        here, and so are the correlations; they are left out of a test set of one example, and
        correlations where targets do not vary.
        """
        counted(np.asarray(Values(self.dim).shown(labels)))
        error = answers.astype(np.float64) - labels.astype(np.float64)
        found = {
            name: _error(each.mean(-1)) for name, each in (("mse", error**2), ("mae", abs(error)))
        }
        if len(error) > 1:
            found["r2"] = Score(evaluate.r2(answers, labels), fraction=False)
            for name, of in (("pearson", evaluate.pearson), ("spearman", evaluate.spearman)):
                if (value := of(answers, labels)) is not None:
                    found[name] = Score(value, fraction=False)
        return found

    def agreement(
        self,
        a: Float[np.ndarray, "n dim"],
        b: Float[np.ndarray, "n dim"],
        labels: Float[np.ndarray, "n dim"] | None = None,
    ) -> evaluate.Agreement:
        """R² of the answers of one model for those of the other."""
        return evaluate.compared(a, b, agreement=evaluate.r2(a, b))

    def agreed(self, agreement: float) -> str:
        """See `Task`."""
        return f"the values agree with an R² of {agreement:.4f}"


def _error(each: Float[np.ndarray, " n"]) -> Score:
    """The mean of an error of each example, which is never below zero."""
    found = report.mean_interval(each)
    ends = None if found is None else (max(0.0, found[0]), found[1])
    return Score(float(each.mean()), ends, higher_is_better=False, fraction=False)
