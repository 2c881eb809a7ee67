"""A classifier that is trained on labels."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Annotated, Literal

from kdjax.config.data import Labels
from kdjax.config.encoders import Encoder
from kdjax.config.fields import (
    Count,
    Decay,
    Positive,
    Text,
)
from kdjax.config.stage import Stage
from kdjax.config.stages.starting import begun_from, one_start
from kdjax.config.teacher_free import TeacherFree
from kdjax.config.training import Training, Weight
from kdjax.config.views import Views
from kdjax.ranges import In
from kdjax.types import Fault


@dataclasses.dataclass(frozen=True, kw_only=True)
class SelfTraining:
    """Learn from one's own predictions of all training images, too: see `kdjax.losses.soft_match`.

    A batch is of all training images, without their labels. An average of the model says what is on
    the weak view of each, and the model learns that of the strong view; for every so many of them it
    learns one labelled example, too. All go through it at once.

    Attributes:
      weak: what is predicted of, an easy view.
      strong: what is learned, a hard view of the same example.
      weight: of the term, beside the cross-entropy of the labelled examples.
      every: of so many images of the batch, one labelled example.
      momentum: decay of the average that predicts; less at first, `(1 + step) / (10 + step)`.
      memory: decay of the running shares of the classes and of the confidence.
      sharpness: how fast a prediction counts less, the less sure it is.
    """

    weak: Views
    strong: Views
    weight: Weight = 1.0
    every: Count = 4
    momentum: Decay = 0.99
    memory: Decay = 0.99
    sharpness: Positive = 2.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finetune(Training, Labels):
    """A model trained on the examples whose labels may be used: a classifier, or of another task.

    Attributes:
      views: new ones each epoch.
      start_from: a stage of kind `pretrain` or `distill_encoder` whose encoder to begin with; then
        `encoder` is not given.
      encoder: what to train from scratch, or from its published `weights`.
      label_smoothing: see `kdjax.losses.cross_entropy`.
      teacher_free: learn from a virtual teacher besides, instead of smoothed labels.
      head: what the linear layer begins with: random numbers, or logistic regression on the features
        of the labelled examples as the encoder is (`probe`, see `kdjax.evaluate.linear_probe`), so
        that the first steps do not spoil the encoder.
      self_training: learn from all training images, too; None to learn from the labelled ones alone.
    """

    kind: Literal["finetune"]
    views: Views
    start_from: Text | None = None
    encoder: Encoder | None = None
    head: Literal["random", "probe"] = "random"
    self_training: SelfTraining | None = None
    label_smoothing: Annotated[float, In("[0, 1)")] = 0.0
    teacher_free: TeacherFree | None = None

    def faults(self) -> Iterator[Fault]:
        """Fields that do not go together."""
        yield from one_start(self.start_from, self.encoder)
        if self.teacher_free is not None and self.label_smoothing > 0:
            yield (
                "label_smoothing, teacher_free",
                f"{self.label_smoothing}, and teacher_free smooths the labels, too",
                "give one of the two",
            )
        if self.head == "probe" and (self.encoder is not None and self.encoder.weights is None):
            yield (
                "head, start_from",
                "probe, and random features are no start",
                "give start_from, or the weights of the encoder",
            )
        if self.self_training is None:
            return
        if self.batch % (self.self_training.every * self.accumulate):
            yield (
                "self_training.every, batch",
                f"{self.self_training.every}, and each part of a batch has one labelled example for "
                "so many",
                f"give a batch that it divides, times accumulate, and not {self.batch}",
            )
        for name in ("weak", "strong"):
            if getattr(self.self_training, name).sides != self.views.sides:
                yield (
                    f"self_training.{name}.size, views.size",
                    "the model sees all of them",
                    "give the same size",
                )
        if self.ema is not None:
            yield (
                "ema, self_training",
                f"{self.ema}, and self_training keeps an average of its own",
                "leave ema out",
            )

    def is_measured(self) -> bool:
        """Whether what it leaves is scored on test examples and their labels."""
        return True

    def leaves_model(self) -> bool:
        """Whether what is scored is a model that it leaves: it can be scored again as it is."""
        return True

    def needs(self, stages: Mapping[str, Stage]) -> tuple[str, ...]:
        """Names of the stages that this one reads."""
        return begun_from(self.encoder) if self.start_from is None else (self.start_from,)
