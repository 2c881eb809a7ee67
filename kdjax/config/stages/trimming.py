"""A model that is given fewer tokens."""

import dataclasses
from collections.abc import Mapping
from typing import Literal

from kdjax.config.fields import NonNegative, Text
from kdjax.config.stage import Stage


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trim(Stage):
    """A model whose vocabulary is what occurs in the training examples, and what else falls back on.

    Its tables have fewer rows, and its tokenizer fewer tokens: those that occur, and single characters.
    A text whose tokens are all left gives the very answer of the model before. What begins from it,
    quantizes or exports it reads the data by the smaller tokenizer, which lies beside its files. A cache
    is of one tokenizer: a model that learns from one is trimmed afterwards.

    Attributes:
      model: the stage whose model is trimmed.
      tolerance: largest difference of an output on training examples from the model before, relative to
        the largest.
    """

    kind: Literal["trim"]
    model: Text
    tolerance: NonNegative = 1e-5

    def is_measured(self) -> bool:
        """Whether what it leaves is scored on test examples and their labels."""
        return True

    def leaves_model(self) -> bool:
        """Whether what is scored is a model that it leaves: it can be scored again as it is."""
        return True

    def needs(self, stages: Mapping[str, Stage]) -> tuple[str, ...]:
        """Names of the stages that this one reads."""
        return (self.model,)
