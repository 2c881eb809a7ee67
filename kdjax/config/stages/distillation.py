"""What a teacher says, on disk, and the students that learn from it."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Annotated, Literal

from kdjax.config.embeddings import EmbeddingMethod
from kdjax.config.embeddings.rows import EmbeddingCosine
from kdjax.config.encoders import Encoder
from kdjax.config.feature_terms import FeatureTerm
from kdjax.config.fields import (
    GIVE_WEIGHT,
    NO_WEIGHT,
    Count,
    NonNegative,
    Positive,
    Text,
    Width,
    untracked,
)
from kdjax.config.logit_losses import LogitLoss
from kdjax.config.logit_losses.plain import PLAIN_KD
from kdjax.config.mixes import Mix
from kdjax.config.signals import Signal
from kdjax.config.stage import Stage
from kdjax.config.stages.starting import begun_from, one_start
from kdjax.config.training import Number, Ramp, Training, Weight
from kdjax.config.views import Size, Views
from kdjax.ranges import AtLeast, Distinct, In
from kdjax.types import Fault

Temperature = Annotated[Number, In("(0, inf)")]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cache(Stage):
    """What a teacher says of `views` views of every training example, on disk.

    Attributes:
      teacher: the stage whose model is asked, or several of them.
      recipe: how a view is made. Its `size` is what the teacher sees, its own by default; `shift`,
        `cutout` and `blur_kernel` are pixels of a view of that size.
      views: how many of each example; a student cycles through them, one an epoch.
      mix: each view with another example's, chosen by the same keys, or not at all.
      signal: what is kept of the teacher's output; by default its whole answer: all logits of classes,
        the values of a regression.
      together: of several teachers: `mean` keeps the mean of their probabilities, `apart` what each
        says, for a student to weigh (`teacher_weights`).
      weights: of the teachers in the mean, equal by default.
      dtype: of the stored numbers.
      batch: examples in one pass of the teacher; changes no view.
    """

    kind: Literal["cache"]
    teacher: Text | Annotated[tuple[Text, ...], AtLeast(1), Distinct()]
    recipe: Views
    views: Count
    mix: Mix | None = None
    signal: Signal | None = None
    together: Literal["mean", "apart"] = "mean"
    weights: tuple[Positive, ...] | None = None
    dtype: Literal["float16", "float32"] = "float16"
    batch: Count = untracked(256)

    def faults(self) -> Iterator[Fault]:
        """Fields that do not go together."""
        n = len(self.teachers)
        if self.weights is not None and self.together == "apart":
            yield "weights, together", "they are of a mean", "give a student teacher_weights"
        elif self.weights is not None and len(self.weights) != n:
            yield "weights, teacher", f"{len(self.weights)} for {n} teachers", "give one for each"
        if self.of_features and n > 1 and self.together == "mean":
            yield "together, signal.name, teacher", "embeddings have no mean", "keep them apart"

    @property
    def of_features(self) -> bool:
        """Whether the features of the teacher's encoder are kept, and not its answers."""
        return self.signal is not None and self.signal.of_features

    @property
    def teachers(self) -> tuple[str, ...]:
        """The stages whose models are asked."""
        return (self.teacher,) if isinstance(self.teacher, str) else self.teacher

    def needs(self, stages: Mapping[str, Stage]) -> tuple[str, ...]:
        """Names of the stages that this one reads."""
        return self.teachers


def taught_by(cache: str, stages: Mapping[str, Stage], *, live: bool = False) -> tuple[str, ...]:
    """A cache and the teachers that it is checked against; these alone if they are asked."""
    match stages.get(cache):
        case Cache(teachers=teachers):
            return teachers if live else (cache, *teachers)
    return (cache,)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FromCache(Training):
    """What every stage has that learns from a teacher's signals.

    Attributes:
      cache: a stage of kind `cache`: its views, and what its teachers say of them.
      live: ask the teachers in the step instead of reading their signals; the views are the same.
      size: height and width of the view that the student sees, or one integer for both, the teacher's
        by default: the same crop.
      accept: what may be otherwise than when the cache was written, where the views are the same
        pixels all the same: `jax` (its version), `backend`.
    """

    cache: Text
    live: bool = False
    size: Size | None = None
    accept: Annotated[tuple[Literal["jax", "backend"], ...], Distinct()] = untracked(())

    def needs(self, stages: Mapping[str, Stage]) -> tuple[str, ...]:
        """Names of the stages that this one reads."""
        return taught_by(self.cache, stages, live=self.live)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Hyperparameters:
    """What a student of a sweep has of its own; the stage's where it is not given."""

    temperature: Positive | None = None
    kd_weight: NonNegative | None = None
    ce_weight: NonNegative | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Distill(FromCache):
    """A student that learns all training examples from the teacher, on the teacher's own views.

    Attributes:
      start_from: a stage whose whole model to begin with; then `encoder` is not given.
      encoder: what to train from scratch.
      logits: how the student's are compared with the teacher's, where the task has classes (a regression
        has the squared error); all but `kl` need all logits.
      standardize: first of all both are standardized, see `kdjax.losses.standardize`.
      temperature: of the softened softmaxes.
      kd_weight: of the term of the logits, a mean over all rows.
      ce_weight: of the loss against the labels (of classes the cross-entropy), a mean over the rows whose
        labels may be used.
      teacher_weights: of teachers that are kept apart, equal by default; they add up to one.
      features: more terms, of features and by name. No cache has features: it takes `live` and one
        teacher, which is asked for them and for its logits at once. What is learned for a term alone
        is trained with the student and left behind.
      sweep: several students from one pass over the data, which differ in these; the stage leaves a
        row for each, and no model for another stage to begin with.
      sweep_by: `vmap` trains them as one large step, `unroll` one after the other within a step;
        `auto` is `unroll` on CPU, where XLA is slow at the convolutions that `vmap` makes.
    """

    kind: Literal["distill"]
    start_from: Text | None = None
    encoder: Encoder | None = None
    logits: LogitLoss = PLAIN_KD
    standardize: bool = False
    temperature: Temperature = 4.0
    kd_weight: Weight = 0.9
    ce_weight: Weight = 0.1
    teacher_weights: Annotated[tuple[Weight, ...], AtLeast(1)] | None = None
    features: Mapping[str, FeatureTerm] = dataclasses.field(default_factory=dict)
    sweep: tuple[Hyperparameters, ...] = ()
    sweep_by: Literal["auto", "vmap", "unroll"] = untracked("auto")

    def faults(self) -> Iterator[Fault]:
        """Fields that do not go together."""
        yield from one_start(self.start_from, self.encoder)
        for name in self.features:
            if name in ("kd", "ce") or not name.isidentifier():
                yield (
                    f"features.{name}",
                    "give it a name of letters and digits that is not kd or ce",
                )
        if self.features and not self.live:
            yield "features, live", "no cache has features", "set live=True"
        if self.features and self.sweep:
            yield "sweep, features", "not with features", "give each student a stage of its own"
        for name in ("temperature", "kd_weight", "ce_weight"):
            ramp = isinstance(getattr(self, name), Ramp)
            own = sum(getattr(knobs, name) is not None for knobs in self.sweep)
            if ramp and 0 < own < len(self.sweep):
                yield (
                    f"sweep, {name}",
                    f"{name} is a schedule of some students and a number of others",
                    "give each a number of its own, or none",
                )
        if not self.features and not self.terms:
            for i, knobs in enumerate(self.sweep or (Hyperparameters(),)):
                at = f"sweep[{i}]." if self.sweep else ""
                own = (knobs.kd_weight, knobs.ce_weight)
                both = zip(own, (self.kd_weight, self.ce_weight), strict=True)
                if all(shared == 0 if mine is None else mine == 0 for mine, shared in both):
                    yield (
                        ", ".join(f"{at}{name}" for name in ("kd_weight", "ce_weight")),
                        NO_WEIGHT.format("ce_weight"),
                        GIVE_WEIGHT,
                    )
        weights = self.teacher_weights or ()
        if weights and all(weight == 0 for weight in weights):
            yield "teacher_weights", "all are zero", "give one of them a weight"

    def is_measured(self) -> bool:
        """Whether what it leaves is scored on test examples and their labels."""
        return True

    def leaves_model(self) -> bool:
        """Whether what is scored is a model that it leaves: it can be scored again as it is."""
        return True

    def needs(self, stages: Mapping[str, Stage]) -> tuple[str, ...]:
        """Names of the stages that this one reads."""
        read = begun_from(self.encoder) if self.start_from is None else (self.start_from,)
        return tuple(dict.fromkeys((*super().needs(stages), *read)))


_COSINE = EmbeddingCosine(name="cosine")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DistillEncoder(FromCache):
    """An encoder that learns the embedding of a teacher's: no labels are used.

    It leaves what `pretrain` leaves: an encoder to fine-tune.

    Attributes:
      encoder: what is trained and kept.
      projector: widths of the hidden layers between its features and what is compared with the
        teacher's embedding. Where a method compares row with row (`cosine`, `mse`, `seed`) a last
        layer of the teacher's width follows; the others take any width, and the features
        themselves where this is empty.
      method: how the two are compared.
    """

    kind: Literal["distill_encoder"]
    encoder: Encoder
    projector: tuple[Width, ...] = ()
    method: EmbeddingMethod = _COSINE

    def needs(self, stages: Mapping[str, Stage]) -> tuple[str, ...]:
        """Names of the stages that this one reads."""
        return tuple(dict.fromkeys((*super().needs(stages), *begun_from(self.encoder))))

    def faults(self) -> Iterator[Fault]:
        """Fields that do not go together."""
        together = max(self.batch // self.accumulate, 1)
        if (rows := self.method.remembered) % together:
            yield (
                "method.queue, batch, accumulate",
                f"{rows} rows",
                f"give a multiple of the {together} examples that go through the model at once (batch "
                "/ accumulate)",
            )
