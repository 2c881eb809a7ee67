"""Published weights as they are."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Literal

from kdjax.config.encoders import Encoder
from kdjax.config.stage import Stage
from kdjax.config.views import Size
from kdjax.types import Fault


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pretrained(Stage):
    """Published weights without any training: a teacher, or what later stages begin with.

    It leaves the whole model where the weights have a classifier of as many classes as the task, or where
    the task asks for vectors as wide as the features, which are then the answer. It is measured then;
    otherwise it leaves the encoder alone.

    Attributes:
      encoder: with its `weights`.
      size: at which images are seen, as of views; their own by default.
    """

    kind: Literal["pretrained"]
    encoder: Encoder
    size: Size | None = None

    def faults(self) -> Iterator[Fault]:
        """Fields that do not go together."""
        if self.encoder.weights is None:
            yield "encoder.weights", "missing", "say where the published weights are"
        if self.encoder.begun_from is not None:
            yield "encoder.weights", "layers of a stage, and nothing is trained", "take finetune"

    def is_measured(self) -> bool:
        """Whether what it leaves is scored: where it has a classifier."""
        return True

    def leaves_model(self) -> bool:
        """Whether what is scored is a model that it leaves: it can be scored again as it is."""
        return True

    def needs(self, stages: Mapping[str, Stage]) -> tuple[str, ...]:
        """Names of the stages that this one reads."""
        return ()
