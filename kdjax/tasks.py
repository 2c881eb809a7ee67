"""What a model is asked: its head, and what its answers are worth.

Another task is another class, and in the union. The losses of the stages, and what compares the answers
of two models (`kdjax.stages.parity`, `kdjax.stages.sensitivity`), are those of classes still.
"""

import dataclasses
from typing import ClassVar, Literal, TypeAlias

import flax.linen as nn
import numpy as np
from jaxtyping import Float, Float32, Int

from kdjax import evaluate, models, report
from kdjax.data import Dataset
from kdjax.report import Score


@dataclasses.dataclass(frozen=True, kw_only=True)
class Classification:
    """Which one of several classes an example is of.

    Attributes:
      classes: how many.
    """

    name: Literal["classification"] = "classification"
    classes: int

    output: ClassVar[str] = "logits"
    """Of the head's outputs, the one that a file gives and by which two models are compared."""

    primary: ClassVar[str] = "accuracy"
    """Of the scores, the one by which two models are compared."""

    def head(self, encoder: nn.Module) -> nn.Module:
        """The model: `features` [batch, dim] of the encoder, and `logits` [batch, classes] on them."""
        return models.Classifier(encoder, self.classes)

    def made_up(self, examples: int) -> Float32[np.ndarray, "n classes"]:
        """Answers that may occur, always the same ones."""
        random = np.random.default_rng(0)
        return random.normal(size=(examples, self.classes)).astype(np.float32)

    def scores(
        self, answers: Float[np.ndarray, "n classes"], labels: Int[np.ndarray, " n"]
    ) -> dict[str, Score]:
        """What logits of labelled examples are worth."""
        predicted = answers.argmax(-1)
        found = evaluate.scores(evaluate.confusion(labels, predicted, classes=self.classes))
        return {
            "accuracy": Score(found.accuracy, report.wilson(found.accuracy, found.examples)),
            "recall_macro": Score(found.recall_macro),
            "f1_macro": Score(found.f1_macro),
        }


Task: TypeAlias = Classification


def of(dataset: Dataset) -> Task:
    """What the labels of a dataset ask."""
    return Classification(classes=dataset.classes)
