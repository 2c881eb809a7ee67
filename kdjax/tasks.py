"""What a model is asked: its head, what its answers are worth, and when two models answer alike.

Stages know no more of a task than what stands here. Another task is another class, and in the union.
"""

import dataclasses
from typing import ClassVar, Literal, TypeAlias

import flax.linen as nn

from kdjax import models
from kdjax.data import Dataset


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

    def head(self, encoder: nn.Module) -> nn.Module:
        """The model: `features` [batch, dim] of the encoder, and `logits` [batch, classes] on them."""
        return models.Classifier(encoder, self.classes)


Task: TypeAlias = Classification


def of(dataset: Dataset) -> Task:
    """What the labels of a dataset ask."""
    return Classification(classes=dataset.classes)
