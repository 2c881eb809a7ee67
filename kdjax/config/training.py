"""Numbers that change over the steps, terms of the user's, and what every stage has that trains."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Annotated, ClassVar, Literal

import optax

from kdjax import train
from kdjax.config import held
from kdjax.config.fields import (
    Count,
    Decay,
    Natural,
    NonNegative,
    parts,
    untracked,
)
from kdjax.config.optimizers import Optimizer
from kdjax.config.own import Own
from kdjax.config.pruning import Gradual, Prune, SparseTraining
from kdjax.config.stage import Stage
from kdjax.ranges import In
from kdjax.train import optimizers
from kdjax.types import Fault


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

    def faults(self) -> Iterator[Fault]:
        """Fields that do not go together."""
        if self.end_step is not None and self.begin_step >= self.end_step:
            yield (
                "begin_step, end_step",
                f"{self.begin_step} is not in [0, end_step), and end_step is {self.end_step}",
            )


Number = float | Ramp
"""A number of a method, or how it changes over the steps."""


def over_steps(number: Number, *, steps: int) -> float | optax.Schedule:
    """A number, or its schedule over the steps of a stage."""
    if not isinstance(number, Ramp):
        return number
    return optimizers.ramp(
        number.begin,
        number.end,
        begin_step=number.begin_step,
        end_step=steps if number.end_step is None else number.end_step,
        cosine=number.shape == "cosine",
    )


Weight = Annotated[Number, In("[0, inf)")]
"""Of a term of a loss; zero switches it off."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class OwnTerm(Own):
    """A term of a loss: `(outputs, batch, *, ...) -> losses` [batch], or `(losses, rows)`, or a scalar.

    Losses of positions [batch, positions] come with a mask of that shape, `(losses, mask)`.

    `outputs` are those of the stage's forward pass, such as `logits` and `features`, and `batch` has what
    the stage sees: `inputs`, `label` (negative where it may not be used), `teacher_logits`. It may take
    `axis_name`, the mapped axis of the batch. See `kdjax.train.weigh`.

    Attributes:
      weight: in the loss.
    """

    called_with: ClassVar[tuple[str, ...]] = ("outputs", "batch")
    offered: ClassVar[tuple[str, ...]] = ("axis_name",)

    weight: Weight = 1.0

    def term(self, *, axis_name: str | None = None, path: str = "terms") -> train.Term:
        """For `kdjax.train.weigh`.

        Args:
          axis_name: mapped axis of the batch.
          path: of this, for messages.
        """
        field = f"{path}.function"
        function = self.made(field, axis_name=axis_name)
        return held.term(function, field=field, said=self.function)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training(Stage):
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
      terms: more terms of the loss, functions of yours by name.
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
    terms: Mapping[str, OwnTerm] = dataclasses.field(default_factory=dict)
    dtype: Literal["float32", "bfloat16"] = "float32"
    checkpoint_every_steps: Count = untracked(1000)
    log_every_steps: Count = untracked(50)
    dispatch_steps: Natural = untracked(0)

    def faults(self) -> Iterator[Fault]:
        """Fields that do not go together."""
        if self.batch % self.accumulate:
            yield (
                "accumulate, batch",
                f"{self.accumulate} parts do not share a batch of {self.batch} evenly",
                "take a divisor",
            )
        before_the_end = {"rewind_step": self.rewind_step}
        for field, step in self.optimizer.before_the_end().items():
            before_the_end[f"optimizer.{field}"] = step
        match self.prune:
            case Gradual(end_step=end) | SparseTraining(end_step=end):
                before_the_end["prune.end_step"] = end
        for path, ramp in parts(self, Ramp):
            if ramp.end_step is None:
                before_the_end[f"{path}.begin_step"] = ramp.begin_step
        for field, step in before_the_end.items():
            if step is not None and step >= self.steps:
                yield (
                    f"{field}, steps",
                    f"{step} is not in [0, steps), and steps is {self.steps}",
                )
