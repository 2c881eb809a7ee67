"""The kinds of stages."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Annotated, Literal

from kdjax import quant
from kdjax.config.compressing import Budget, Layers
from kdjax.config.data import Labels
from kdjax.config.embeddings import EmbeddingMethod
from kdjax.config.embeddings.rows import EmbeddingCosine
from kdjax.config.encoders import Encoder
from kdjax.config.feature_terms import FeatureTerm
from kdjax.config.fields import (
    NO_WEIGHT,
    Count,
    Decay,
    Natural,
    NonNegative,
    Positive,
    Regex,
    Seeded,
    Share,
    Sparsity,
    Text,
    Width,
    aside,
)
from kdjax.config.judging import KNN, Linear, Pairs
from kdjax.config.logit_losses import LogitLoss
from kdjax.config.logit_losses.plain import PLAIN_KD
from kdjax.config.methods import Method
from kdjax.config.methods.contrast import SimCLR
from kdjax.config.mixes import Mix
from kdjax.config.signals import Signal
from kdjax.config.teacher_free import TeacherFree
from kdjax.config.training import Number, Ramp, Training, Weight
from kdjax.config.views import Size, Views
from kdjax.ranges import AtLeast, Distinct, In

Temperature = Annotated[Number, In("(0, inf)")]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pretrain(Training):
    """A self-supervised method on all training images; labels are not used, but by the probe.

    Attributes:
      encoder: what is trained and kept.
      projector: widths of the MLP on top of it, which is not kept for later stages.
      method: how it learns.
      views: two are drawn of each example, new ones each epoch; one for `rotation` and `mae`.
      probe: watch a linear classifier on the features of the first view, which learns from the labels
        that may be used. Nothing of it reaches the encoder.
    """

    kind: Literal["pretrain"]
    encoder: Encoder
    views: Views
    projector: tuple[Width, ...] = (128, 64)
    method: Method = SimCLR(name="simclr")
    probe: bool = False

    def faults(self) -> Iterator[tuple[str, str]]:
        """Fields that do not go together."""
        yield from self.method.misfits(self)
        if self.ema is not None and self.method.has_target:
            yield (
                "ema, method.name",
                f"{self.method.name} has a target network, which is the average; leave it out, and "
                "give method.momentum",
            )

    def needs(self, stages: Mapping[str, "Stage"]) -> tuple[str, ...]:
        """Names of the stages that this one reads."""
        return ()


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
      encoder: what to train from scratch.
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

    def faults(self) -> Iterator[tuple[str, str]]:
        """Fields that do not go together."""
        yield from _begins(self)
        if self.teacher_free is not None and self.label_smoothing > 0:
            yield (
                "label_smoothing, teacher_free",
                f"{self.label_smoothing}, and teacher_free smooths the labels, too; give one of the two",
            )
        if self.head == "probe" and self.start_from is None:
            yield "head, start_from", "probe, and random features are no start; give start_from"
        if self.self_training is None:
            return
        if self.batch % (self.self_training.every * self.accumulate):
            yield (
                "self_training.every, batch",
                f"{self.self_training.every}, and each part of a batch has one labelled example for so "
                f"many; give a batch that it divides, times accumulate, and not {self.batch}",
            )
        for name in ("weak", "strong"):
            if getattr(self.self_training, name).size != self.views.size:
                yield (
                    f"self_training.{name}.size, views.size",
                    "the model sees all of them; give the same size",
                )
        if self.ema is not None:
            yield (
                "ema, self_training",
                f"{self.ema}, and self_training keeps an average of its own; leave ema out",
            )

    def is_measured(self) -> bool:
        """Whether what it leaves is scored on test examples and their labels."""
        return True

    def needs(self, stages: Mapping[str, "Stage"]) -> tuple[str, ...]:
        """Names of the stages that this one reads."""
        return () if self.start_from is None else (self.start_from,)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cache(Seeded):
    """What a teacher says of `views` views of every training example, on disk.

    Attributes:
      teacher: the stage whose model is asked, or several of them.
      recipe: how a view is made. Its `size` is the side that the teacher sees, its own by default;
        `shift`, `cutout` and `blur_kernel` are pixels of a view of that side.
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
    batch: Count = aside(256)

    def faults(self) -> Iterator[tuple[str, str]]:
        """Fields that do not go together."""
        n = len(self.teachers)
        if self.weights is not None and self.together == "apart":
            yield "weights, together", "they are of a mean; give a student teacher_weights"
        elif self.weights is not None and len(self.weights) != n:
            yield "weights, teacher", f"{len(self.weights)} for {n} teachers; give one for each"
        if self.of_features and n > 1 and self.together == "mean":
            yield "together, signal.name, teacher", "embeddings have no mean; keep them apart"

    @property
    def of_features(self) -> bool:
        """Whether the features of the teacher's encoder are kept, and not its answers."""
        return self.signal is not None and self.signal.of_features

    @property
    def teachers(self) -> tuple[str, ...]:
        """The stages whose models are asked."""
        return (self.teacher,) if isinstance(self.teacher, str) else self.teacher

    def needs(self, stages: Mapping[str, "Stage"]) -> tuple[str, ...]:
        """Names of the stages that this one reads."""
        return self.teachers


def _taught_by(cache: str, stages: Mapping[str, "Stage"], *, live: bool = False) -> tuple[str, ...]:
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
      size: side of the view that the student sees, the teacher's by default: the same crop.
      accept: what may be otherwise than when the cache was written, where the views are the same
        pixels all the same: `jax` (its version), `backend`.
    """

    cache: Text
    live: bool = False
    size: Size | None = None
    accept: Annotated[tuple[Literal["jax", "backend"], ...], Distinct()] = aside(())

    def needs(self, stages: Mapping[str, "Stage"]) -> tuple[str, ...]:
        """Names of the stages that this one reads."""
        return _taught_by(self.cache, stages, live=self.live)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Knobs:
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
    sweep: tuple[Knobs, ...] = ()
    sweep_by: Literal["auto", "vmap", "unroll"] = aside("auto")

    def faults(self) -> Iterator[tuple[str, str]]:
        """Fields that do not go together."""
        yield from _begins(self)
        for name in self.features:
            if name in ("kd", "ce") or not name.isidentifier():
                yield (
                    f"features.{name}",
                    "give it a name of letters and digits that is not kd or ce",
                )
        if self.features and not self.live:
            yield "features, live", "no cache has features; set live=True"
        if self.features and self.sweep:
            yield "sweep, features", "not with features; give each student a stage of its own"
        for name in ("temperature", "kd_weight", "ce_weight"):
            ramp = isinstance(getattr(self, name), Ramp)
            own = sum(getattr(knobs, name) is not None for knobs in self.sweep)
            if ramp and 0 < own < len(self.sweep):
                yield (
                    f"sweep, {name}",
                    f"{name} is a schedule of some students and a number of others; give each a "
                    "number of its own, or none",
                )
        if not self.features and not self.terms:
            for i, knobs in enumerate(self.sweep or (Knobs(),)):
                at = f"sweep[{i}]." if self.sweep else ""
                own = (knobs.kd_weight, knobs.ce_weight)
                both = zip(own, (self.kd_weight, self.ce_weight), strict=True)
                if all(shared == 0 if mine is None else mine == 0 for mine, shared in both):
                    yield (
                        ", ".join(f"{at}{name}" for name in ("kd_weight", "ce_weight")),
                        NO_WEIGHT.format("ce_weight"),
                    )
        weights = self.teacher_weights or ()
        if weights and all(weight == 0 for weight in weights):
            yield "teacher_weights", "all are zero; give one of them a weight"

    def is_measured(self) -> bool:
        """Whether what it leaves is scored on test examples and their labels."""
        return True

    def needs(self, stages: Mapping[str, "Stage"]) -> tuple[str, ...]:
        """Names of the stages that this one reads."""
        read = () if self.start_from is None else (self.start_from,)
        return (*super().needs(stages), *read)


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

    def faults(self) -> Iterator[tuple[str, str]]:
        """Fields that do not go together."""
        together = max(self.batch // self.accumulate, 1)
        if (rows := self.method.remembered) % together:
            yield (
                "method.queue, batch, accumulate",
                f"{rows} rows; give a multiple of the {together} examples that go through the model at "
                "once (batch / accumulate)",
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluate(Seeded, Labels):
    """What the features of a frozen encoder are worth: nothing of it is trained.

    Attributes:
      model: a stage that left an encoder: `pretrain`, `distill_encoder`, or a classifier; None for the
        pixels themselves, which is what everything else has to beat.
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
    batch: Count = aside(256)

    def faults(self) -> Iterator[tuple[str, str]]:
        """Fields that do not go together."""
        if self.knn is None and self.linear is None and self.pairs is None:
            yield (
                "., knn, linear, pairs",
                "there is nothing to do; give one of knn, linear and pairs",
            )

    def is_measured(self) -> bool:
        """Whether what it leaves is scored on test examples and their labels."""
        return self.knn is not None or self.linear is not None

    def needs(self, stages: Mapping[str, "Stage"]) -> tuple[str, ...]:
        """Names of the stages that this one reads."""
        return () if self.model is None else (self.model,)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shrink(Seeded):
    """A model with fewer channels, heads and hidden units: smaller shapes, not masks.

    What is masked already goes; so do the units that are worth least, until the sparsity or the
    budget is reached. The result is a model like any other, to train on, to quantize, to export.

    Attributes:
      model: the stage whose model is shrunk.
      sparsity: share of the units to take away; 0 takes what is masked alone.
      budget: the least pruning that meets it, instead of a sparsity.
      sensitivity: a stage of kind `sensitivity` of the same model: groups that can bear it lose more.
      score: see `Units`; or `activity`: what a unit gives on training images; or drawn.
      ranking: each group by itself, or all units together.
      multiple: widths are rounded up to a multiple of it. ONNX Runtime lays channels out in eights or
        sixteens: with any other widths a smaller network may be slower than the whole one.
      frozen: pattern of the names of groups that stay whole.
      examples: training images that the statistics of BatchNorm are found anew on, at most all; 0
        leaves the statistics. `activity` sees 128, or all where there are fewer.
      tolerance: largest difference of an output between masked and shrunk, relative to the largest.
    """

    kind: Literal["shrink"]
    model: Text
    sparsity: Sparsity = 0.0
    budget: Budget | None = None
    sensitivity: Text | None = None
    score: Literal["group_l1", "group_l2", "producer_l1", "scale", "activity", "random"] = (
        "group_l1"
    )
    ranking: Literal["each", "global"] = "each"
    multiple: Width = 1
    frozen: Regex | None = None
    examples: Natural = 1024
    tolerance: NonNegative = 1e-5

    def faults(self) -> Iterator[tuple[str, str]]:
        """Fields that do not go together."""
        if self.budget is not None and self.sparsity:
            yield "budget, sparsity", "give one of sparsity and budget"

    def is_measured(self) -> bool:
        """Whether what it leaves is scored on test examples and their labels."""
        return True

    def needs(self, stages: Mapping[str, "Stage"]) -> tuple[str, ...]:
        """Names of the stages that this one reads."""
        return (self.model,) if self.sensitivity is None else (self.model, self.sensitivity)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sensitivity(Seeded):
    """How much the model changes as a group loses units, or a layer bits: one at a time.

    Attributes:
      model: the stage whose model is looked at.
      sparsities: of one group of units at a time; empty to leave groups alone.
      score: of the units, see `Units`.
      numbers: of one layer at a time whose name the pattern matches; empty to leave layers alone.
      against: the model's own predictions on unlabelled training images, the labels, or what the
        teachers of a cache say of its views.
      cache: of `against=teacher`, a stage of kind `cache`.
      examples: how many training images.
    """

    kind: Literal["sensitivity"]
    model: Text
    sparsities: Annotated[tuple[Annotated[float, In("(0, 1)")], ...], Distinct()] = (
        0.125,
        0.25,
        0.5,
        0.75,
        0.9,
    )
    score: Literal["group_l1", "group_l2", "producer_l1", "scale"] = "group_l1"
    numbers: Annotated[tuple[Layers, ...], Distinct()] = ()
    against: Literal["predictions", "labels", "teacher"] = "predictions"
    cache: Text | None = None
    examples: Count = 512

    def faults(self) -> Iterator[tuple[str, str]]:
        """Fields that do not go together."""
        if not self.sparsities and not self.numbers:
            yield "sparsities, numbers", "there is none, and no numbers; nothing would be measured"
        if (self.against == "teacher") != (self.cache is not None):
            yield "cache, against", "goes with against=teacher, and with nothing else"
        for i, layers in enumerate(self.numbers):
            if layers.weights is None:
                yield (
                    f"numbers[{i}].weights",
                    "float is what a layer is held against; give other weights",
                )

    def needs(self, stages: Mapping[str, "Stage"]) -> tuple[str, ...]:
        """Names of the stages that this one reads."""
        return (self.model, *(() if self.cache is None else _taught_by(self.cache, stages)))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Quantize(Seeded):
    """A model whose layers are in integers, its activations in ranges found on training images.

    BatchNorm is folded first. The result is a model like any other: what begins from it trains with
    the rounding in it (with `distill`, from the cached teacher), and `export` writes its integers.

    Attributes:
      model: the stage whose model is quantized.
      rules: the numbers of the layers, of which the first counts that matches.
      budget: what the model may cost, in bytes or in milliseconds, instead of rules: each layer then
        has those of the numbers in `sensitivity` that together hurt least.
      sensitivity: of a budget, a stage of kind `sensitivity` of the same model, with numbers.
      float_edges: leave the layers in float that see the image, and those that give the logits.
      calibration: `minmax`, `percentile` or `mse`, see `kdjax.quant.calibrate`.
      percentile: of `calibration=percentile`.
      calibration_examples: how many training images the ranges are found on.
      agreement: lowest agreement of the quantized and the float model on the test examples, by the
        measure of their task: of classes, the share that gets one label from both.
      accuracy_drop: of classes, largest fall of the test accuracy from the float model's, which then
        decides instead: a transformer's logits may move while it is as often right.
    """

    kind: Literal["quantize"]
    model: Text
    rules: Annotated[tuple[Layers, ...], AtLeast(1), Distinct()] = (Layers(),)
    budget: Budget | None = None
    sensitivity: Text | None = None
    float_edges: bool = True
    calibration: quant.Method = "minmax"
    percentile: Annotated[float, In("(50, 100]")] = 99.99
    calibration_examples: Count = 256
    agreement: Share = 0.95
    accuracy_drop: Annotated[float, In("[-1, 1]")] | None = None

    def faults(self) -> Iterator[tuple[str, str]]:
        """Fields that do not go together."""
        if (self.budget is None) != (self.sensitivity is None):
            yield "budget, sensitivity", "goes with sensitivity; give both or neither"
        if self.budget is not None and self.rules != (Layers(),):
            yield "rules, budget", f"the numbers are those of {self.sensitivity}; leave them out"
        if self.budget is not None and self.budget.bytes is self.budget.latency_ms is None:
            yield "budget", "give bytes or latency_ms"

    def is_measured(self) -> bool:
        """Whether what it leaves is scored on test examples and their labels."""
        return True

    def needs(self, stages: Mapping[str, "Stage"]) -> tuple[str, ...]:
        """Names of the stages that this one reads."""
        return (self.model,) if self.sensitivity is None else (self.model, self.sensitivity)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Export(Seeded):
    """One file a format, each loaded again in its runtime and compared with the live model.

    Attributes:
      model: the stage whose model is exported.
      formats: `stablehlo` (jax.export), `onnx`, `litert` (a .tflite file; needs the extra `litert`). Of
        a quantized model `stablehlo` rounds in float; the others have the integers.
      tolerance: largest difference of an output from the live one, on the test examples, relative to
        the largest live output; beyond it the stage fails.
      agreement: of a model with quantized activations, lowest agreement of the file and the live model,
        as of `quantize`. The tolerance is not for them: a sum added up in another order is rounded the
        other way now and then.
      accuracy_drop: of such a model of classes, largest fall of the test accuracy, which then decides
        instead; below zero, what it must rise by.
    """

    kind: Literal["export"]
    model: Text
    formats: Annotated[
        tuple[Literal["stablehlo", "onnx", "litert"], ...], AtLeast(1), Distinct()
    ] = ("stablehlo", "onnx")
    tolerance: NonNegative = 1e-4
    agreement: Share = 0.99
    accuracy_drop: Annotated[float, In("[-1, 1]")] | None = None

    def is_measured(self) -> bool:
        """Whether what it leaves is scored on test examples and their labels."""
        return True

    def needs(self, stages: Mapping[str, "Stage"]) -> tuple[str, ...]:
        """Names of the stages that this one reads."""
        return (self.model,)


Stage = (
    Pretrain
    | Finetune
    | Cache
    | Distill
    | DistillEncoder
    | Evaluate
    | Sensitivity
    | Shrink
    | Quantize
    | Export
)


def _begins(c: Finetune | Distill) -> Iterator[tuple[str, str]]:
    """Where a classifier begins: one of the two, and never both."""
    if (c.start_from is None) == (c.encoder is None):
        yield "., start_from, encoder", "give one of start_from (a stage) and encoder (a model)"
