"""Scores of the user's, beside those of the task."""

import dataclasses
import math
from typing import ClassVar

import numpy as np

from kdjax.config import own
from kdjax.report import Score
from kdjax.types import BadInput


@dataclasses.dataclass(frozen=True, kw_only=True)
class OwnScore(own.Own):
    """A score: `(answers, labels, *, ...) -> number`, of NumPy arrays of all test examples.

    Answers are what a file of the model gives: the logits of a classifier, [examples, classes].

    Attributes:
      higher_is_better: False of an error.
      fraction: it is one of 1, and shown in %.
      primary: it takes the place of the task's own score, by which models are compared.
    """

    called_with: ClassVar[tuple[str, ...]] = ("answers", "labels")

    higher_is_better: bool = True
    fraction: bool = True
    primary: bool = False

    def score(self, answers: np.ndarray, labels: np.ndarray, *, path: str) -> Score:
        """What it says of these answers.

        Args:
          answers: of the model.
          labels: of the examples.
          path: of this, for messages.

        Raises:
          BadInput: it fails, or gives no finite number, or no fraction where it is to be one.
        """
        found = self.called(path, answers, labels)
        array = np.asarray(found)
        value = float(array) if array.ndim == 0 and array.dtype.kind in "biuf" else math.nan
        if not math.isfinite(value) or (self.fraction and not 0 <= value <= 1):
            wanted = "a number from 0 to 1, or set fraction=False" if self.fraction else "a number"
            given = f"{value:g}" if math.isfinite(value) else own.shown(found)
            raise BadInput(
                f"{path}.function", f"{self.function} gave {given}", f"it is to give {wanted}"
            )
        return Score(value, higher_is_better=self.higher_is_better, fraction=self.fraction)
