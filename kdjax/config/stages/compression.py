"""A model made smaller: fewer units, fewer bits, and how much of either it can bear."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Annotated, Literal

from kdjax import quant
from kdjax.config.budget import Budget, Layers
from kdjax.config.fields import (
    Count,
    Natural,
    NonNegative,
    Regex,
    Share,
    Sparsity,
    Text,
    Width,
)
from kdjax.config.stage import Stage
from kdjax.config.stages.distillation import taught_by
from kdjax.ranges import AtLeast, Distinct, In
from kdjax.types import Fault


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shrink(Stage):
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
      examples: training images that the statistics of BatchNorm are found anew on; None takes 1024, or
        all where there are fewer, and 0 leaves the statistics. `activity` sees 128 or all.
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
    examples: Natural | None = None
    tolerance: NonNegative = 1e-5

    def faults(self) -> Iterator[Fault]:
        """Fields that do not go together."""
        if self.budget is not None and self.sparsity:
            yield "budget, sparsity", "give one of sparsity and budget"

    def is_measured(self) -> bool:
        """Whether what it leaves is scored on test examples and their labels."""
        return True

    def leaves_model(self) -> bool:
        """Whether what is scored is a model that it leaves: it can be scored again as it is."""
        return True

    def needs(self, stages: Mapping[str, Stage]) -> tuple[str, ...]:
        """Names of the stages that this one reads."""
        return (self.model,) if self.sensitivity is None else (self.model, self.sensitivity)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sensitivity(Stage):
    """How much the model changes as a group loses units, or a layer bits: one at a time.

    Attributes:
      model: the stage whose model is looked at.
      sparsities: of one group of units at a time; empty to leave groups alone.
      score: of the units, see `Units`.
      numbers: of one layer at a time whose name the pattern matches; empty to leave layers alone.
      against: the model's own predictions on unlabelled training images, the labels, or what the
        teachers of a cache say of its views.
      cache: of `against=teacher`, a stage of kind `cache`.
      examples: how many training images; None takes 512, or all where there are fewer.
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
    examples: Count | None = None

    def faults(self) -> Iterator[Fault]:
        """Fields that do not go together."""
        if not self.sparsities and not self.numbers:
            yield (
                "sparsities, numbers",
                "there is none, and no numbers",
                "nothing would be measured",
            )
        if (self.against == "teacher") != (self.cache is not None):
            yield "cache, against", "goes with against=teacher, and with nothing else"
        for i, layers in enumerate(self.numbers):
            if layers.weights is None:
                yield (
                    f"numbers[{i}].weights",
                    "float is what a layer is held against",
                    "give other weights",
                )

    def needs(self, stages: Mapping[str, Stage]) -> tuple[str, ...]:
        """Names of the stages that this one reads."""
        return (self.model, *(() if self.cache is None else taught_by(self.cache, stages)))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Quantize(Stage):
    """A model whose layers are in integers, its activations in ranges found on training images.

    BatchNorm is folded first. The result is a model like any other: what begins from it trains with
    the rounding in it (with `distill`, from the cached teacher), and `export` writes its integers.

    Attributes:
      model: the stage whose model is quantized.
      rules: the numbers of the layers, of which the first counts that matches.
      budget: what the model may cost, in bytes or in milliseconds, instead of rules: each layer then
        has those of the numbers in `sensitivity` that together hurt least.
      sensitivity: of a budget, a stage of kind `sensitivity` of the same model, with numbers.
      float_edges: leave the layers in float that see the image, or the spectra of sound, and those that
        give the logits.
      calibration: `minmax`, `percentile` or `mse`, see `kdjax.quant.calibrate`.
      percentile: of `calibration=percentile`.
      calibration_examples: how many training images the ranges are found on; None takes 256, or all
        where there are fewer.
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
    calibration_examples: Count | None = None
    agreement: Share = 0.95
    accuracy_drop: Annotated[float, In("[-1, 1]")] | None = None

    def faults(self) -> Iterator[Fault]:
        """Fields that do not go together."""
        if (self.budget is None) != (self.sensitivity is None):
            yield "budget, sensitivity", "goes with sensitivity", "give both or neither"
        if self.budget is not None and self.rules != (Layers(),):
            yield (
                "rules, budget",
                f"the numbers are those of {self.sensitivity}",
                "leave them out",
            )
        if self.budget is not None and self.budget.bytes is self.budget.latency_ms is None:
            yield "budget", "give bytes or latency_ms"

    def is_measured(self) -> bool:
        """Whether what it leaves is scored on test examples and their labels."""
        return True

    def leaves_model(self) -> bool:
        """Whether what is scored is a model that it leaves: it can be scored again as it is."""
        return True

    def needs(self, stages: Mapping[str, Stage]) -> tuple[str, ...]:
        """Names of the stages that this one reads."""
        return (self.model,) if self.sensitivity is None else (self.model, self.sensitivity)
