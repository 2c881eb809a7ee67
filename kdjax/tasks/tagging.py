"""Which one of several classes each position of an example is of."""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar, Literal

import flax.linen as nn
import numpy as np
from jaxtyping import Array, Float, Float32, Int

from kdjax import evaluate, models, report, teacher, train
from kdjax.data import Tags, Target
from kdjax.report import Score
from kdjax.tasks.base import counted
from kdjax.tasks.positions import OfPositions
from kdjax.types import Batch


class OfTags(OfPositions):
    """A class for each position of an example itself; see `Task`.

    Losses are of positions that have a label, [batch, positions] with a mask.
    """

    positions: int

    def fitted(
        self, outputs: train.Outputs, label: Int[Array, "batch most"]
    ) -> Int[Array, "batch positions"]:
        """See `Task`."""
        return label[:, : outputs[self.output].shape[1]]

    def supervised(self, outputs: train.Outputs, batch: Batch) -> train.Losses:
        """The losses of positions, and which have a label."""
        return self.labelled(outputs, batch)

    def of_all(
        self, found: Float[Array, "batch positions"], label: Int[Array, "batch positions"]
    ) -> train.Losses:
        """Losses of positions, and which have a label."""
        return found, self.has_label(label)

    def each(
        self, of: teacher.Vector, *, positions: int | None = None
    ) -> teacher.Vector | teacher.Positions:
        """The same of each position that a label has."""
        return teacher.Positions(of=of, most=self.positions)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tagging(OfTags):
    """A class for each position of a sequence, such as the part of speech of a word.

    Attributes:
      classes: how many.
      positions: of an example, those of padding counted.
    """

    target: ClassVar[type[Target]] = Tags

    name: Literal["tagging"] = "tagging"
    classes: int
    positions: int

    @classmethod
    def of(cls, target: Tags) -> "Tagging":
        """See `Task`."""
        return cls(classes=target.classes, positions=target.positions)

    def head(self, encoder: nn.Module) -> nn.Module:
        """The model: `features` [batch, positions, dim], `logits` [..., classes], maybe `mask`."""
        return models.Linear(encoder, self.classes, self.output)

    def made_up(self, examples: int) -> Float32[np.ndarray, "n positions classes"]:
        """Answers that may occur, always the same ones."""
        random = np.random.default_rng(0)
        return random.normal(size=(examples, self.positions, self.classes)).astype(np.float32)

    def scores(
        self,
        answers: Float[np.ndarray, "n positions classes"],
        labels: Int[np.ndarray, "n positions"],
    ) -> Mapping[str, Score]:
        """Accuracy over the positions that have a label, and the means over classes as of a classifier.

        The interval of the accuracy is that of a ratio of sums over examples: positions of one example
        are not independent of each other.

        Reference: Cochran 1977, Sampling Techniques, 3rd ed., ch. 6: the ratio estimator.
        """
        shown = labels >= 0
        counted(np.asarray(shown.any(-1)))
        predicted = answers.argmax(-1)
        found = evaluate.scores(
            evaluate.confusion(labels[shown], predicted[shown], classes=self.classes)
        )
        right = ((predicted == labels) & shown).sum(-1)
        return {
            "accuracy": Score(found.accuracy, report.ratio_interval(right, shown.sum(-1))),
            "recall_macro": Score(found.recall_macro),
            "f1_macro": Score(found.f1_macro),
        }

    def agreement(
        self,
        a: Float[np.ndarray, "n positions classes"],
        b: Float[np.ndarray, "n positions classes"],
        labels: Int[np.ndarray, "n positions"] | None = None,
    ) -> evaluate.Agreement:
        """Share of the positions with a label that get one label from both; of all, without `labels`."""
        return evaluate.agreement(a, b, where=None if labels is None else labels >= 0)
