"""Optimizers, schedules, and what every stage has that trains."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal

from kdjax.config.fields import (
    KERNELS,
    Count,
    Decay,
    Natural,
    NonNegative,
    Positive,
    Regex,
    Seeded,
    aside,
)
from kdjax.config.pruning import Gradual, Prune, SparseTraining
from kdjax.ranges import Ascending, In


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cosine:
    """Linear warm-up, then a half cosine to zero at the stage's last step."""

    name: Literal["cosine"]
    warmup_steps: Natural = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stairs:
    """Constant, multiplied by `factor` at each of `at_steps`."""

    name: Literal["stairs"]
    at_steps: Annotated[tuple[Natural, ...], Ascending()]
    factor: Positive = 0.1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Constant:
    """The peak, always."""

    name: Literal["constant"]


Schedule = Cosine | Stairs | Constant


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ramp:
    """A number that goes from `begin` to `end` while a stage trains, and stays there.

    Attributes:
      begin: until `begin_step`.
      end: from `end_step` on.
      begin_step: last step at which it is `begin`.
      end_step: first step at which it is `end`, the stage's last by default.
      shape: a straight line, or half a cosine.
    """

    begin: float
    end: float
    begin_step: Natural = 0
    end_step: Count | None = None
    shape: Literal["linear", "cosine"] = "linear"

    bounded: ClassVar = ("begin", "end")

    def faults(self) -> Iterator[tuple[str, str]]:
        """Fields that do not go together."""
        if self.end_step is not None and self.begin_step >= self.end_step:
            yield (
                "begin_step, end_step",
                f"{self.begin_step} is not in [0, end_step), and end_step is {self.end_step}",
            )


Number = float | Ramp
"""A number of a method, or how it changes over the steps."""

Weight = Annotated[Number, In("[0, inf)")]
"""Of a term of a loss; zero switches it off."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SGD:
    """See `kdjax.train.optimizers.sgd`. All parameters decay by default, as in PyTorch."""

    name: Literal["sgd"]
    learning_rate: Positive
    schedule: Schedule = Cosine(name="cosine")
    momentum: Decay = 0.9
    nesterov: bool = False
    weight_decay: NonNegative = 0.0
    decayed: Regex = ".*"
    clip_norm: Positive | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdamW:
    """See `kdjax.train.optimizers.adamw`. Kernels alone decay by default."""

    name: Literal["adamw"]
    learning_rate: Positive
    schedule: Schedule = Cosine(name="cosine")
    b1: Decay = 0.9
    b2: Decay = 0.999
    weight_decay: NonNegative = 0.0
    decayed: Regex = KERNELS
    clip_norm: Positive | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class LARS:
    """See `kdjax.train.optimizers.lars`. Kernels alone decay and are scaled by default."""

    name: Literal["lars"]
    learning_rate: Positive
    schedule: Schedule = Cosine(name="cosine")
    momentum: Decay = 0.9
    trust: Positive = 0.001
    weight_decay: NonNegative = 0.0
    decayed: Regex = KERNELS
    clip_norm: Positive | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Frozen:
    """No parameter changes: what an encoder is worth as it begins, but for BatchNorm's statistics."""

    name: Literal["frozen"]


Optimizer = SGD | AdamW | LARS | Frozen


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training(Seeded):
    """What every stage that trains has.

    Attributes:
      steps: updates of the parameters.
      batch: examples of a step, over all devices.
      optimizer: the optimizer and its schedule.
      ema: decay of an average of the parameters, which the stage then leaves; None for none. It is
        debiased, and BatchNorm's statistics are found anew for it.
      accumulate: parts of a batch that go through the model one after the other.
      prune: prune while training. A stage that begins from a pruned model keeps its zeros without.
      scale_l1: weight of the absolute scales of all norms in the loss: network slimming.
      rewind_step: keep the parameters of this step for a lottery ticket.
      dtype: of the activations.
      checkpoint_every_steps: distance between checkpoints.
      log_every_steps: distance between lines of metrics.jsonl, each a mean over the steps between.
      dispatch_steps: steps that the device runs without the host, 0 to choose: 1 on CPU, where XLA
        runs convolutions inside a loop on one thread, 25 elsewhere.
    """

    steps: Count
    batch: Count
    optimizer: Optimizer
    ema: Decay | None = None
    accumulate: Count = 1
    prune: Prune | None = None
    scale_l1: NonNegative = 0.0
    rewind_step: Natural | None = None
    dtype: Literal["float32", "bfloat16"] = "float32"
    checkpoint_every_steps: Count = aside(1000)
    log_every_steps: Count = aside(50)
    dispatch_steps: Natural = aside(0)

    def faults(self) -> Iterator[tuple[str, str]]:
        """Fields that do not go together."""
        if self.batch % self.accumulate:
            yield (
                "accumulate, batch",
                f"{self.accumulate} parts do not share a batch of {self.batch} evenly; take a divisor",
            )
        before_the_end = {"rewind_step": self.rewind_step}
        if not isinstance(self.optimizer, Frozen):
            match self.optimizer.schedule:
                case Cosine(warmup_steps=warmup):
                    before_the_end["optimizer.schedule.warmup_steps"] = warmup
        match self.prune:
            case Gradual(end_step=end) | SparseTraining(end_step=end):
                before_the_end["prune.end_step"] = end
        for path, ramp in ramps(self):
            if ramp.end_step is None:
                before_the_end[f"{path}.begin_step"] = ramp.begin_step
        for field, step in before_the_end.items():
            if step is not None and step >= self.steps:
                yield (
                    f"{field}, steps",
                    f"{step} is not in [0, steps), and steps is {self.steps}",
                )


def ramps(value: Any, path: str = "") -> Iterator[tuple[str, Ramp]]:
    """The ramps in a config, each with its path inside it."""
    if isinstance(value, Ramp):
        yield path, value
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from ramps(getattr(value, field.name), f"{path}.{field.name}".strip("."))
    elif isinstance(value, Mapping):
        for name, one in value.items():
            yield from ramps(one, f"{path}.{name}")
    elif isinstance(value, tuple):
        for i, one in enumerate(value):
            yield from ramps(one, f"{path}[{i}]")
