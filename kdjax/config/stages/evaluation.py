"""What a model is worth."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Literal

from kdjax.config.data import Labels
from kdjax.config.fields import (
    Count,
    Text,
    untracked,
)
from kdjax.config.probes import KNN, Linear, Pairs
from kdjax.config.stage import Stage
from kdjax.types import Fault


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluate(Stage, Labels):
    """What the features of a frozen encoder are worth: nothing of it is trained.

    Attributes:
      model: a stage that left an encoder: `pretrain`, `distill_encoder`, or a classifier; None for the
        inputs themselves, which is what everything else has to beat: the pixels; of texts TF-IDF of
        their tokens and pairs of tokens, with `linear` alone.
      knn: the vote of the nearest labelled training examples, None to leave it out.
      linear: a linear classifier fitted to the labelled training examples, None to leave it out.
      pairs: how the features of unlabelled test examples lie, None to leave it out.
      batch: examples in one pass of the encoder; changes no feature.
    """

    kind: Literal["evaluate"]
    model: Text | None = None
    knn: KNN | None = KNN()
    linear: Linear | None = Linear()
    pairs: Pairs | None = None
    batch: Count = untracked(256)

    def faults(self) -> Iterator[Fault]:
        """Fields that do not go together."""
        if self.knn is None and self.linear is None and self.pairs is None:
            yield (
                "., knn, linear, pairs",
                "there is nothing to do",
                "give one of knn, linear and pairs",
            )

    def is_measured(self) -> bool:
        """Whether what it leaves is scored on test examples and their labels."""
        return self.knn is not None or self.linear is not None

    def needs(self, stages: Mapping[str, Stage]) -> tuple[str, ...]:
        """Names of the stages that this one reads."""
        return () if self.model is None else (self.model,)
