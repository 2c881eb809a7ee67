"""Optimizers, and how their learning rates change."""

import abc
import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, Literal

import optax

from kdjax.choice import Choice
from kdjax.config.fields import KERNELS, Count, Decay, Natural, NonNegative, Positive, Regex
from kdjax.ranges import Ascending, In
from kdjax.train import Freezing, optimizers
from kdjax.types import Fault


class Schedule(Choice, abc.ABC):
    """How the learning rate changes over the steps."""

    @abc.abstractmethod
    def over(self, steps: int, *, peak: float) -> optax.Schedule:
        """`step -> learning rate`.

        Args:
          steps: of the stage.
          peak: the largest rate.
        """

    def before_the_end(self) -> dict[str, int]:
        """Steps that must be before the stage's last, by field."""
        return {}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cosine(Schedule):
    """Linear warm-up, then a half cosine to zero at the stage's last step."""

    name: Literal["cosine"]
    warmup_steps: Natural = 0

    def over(self, steps: int, *, peak: float) -> optax.Schedule:
        """See `kdjax.train.optimizers.warmup_cosine`."""
        return optimizers.warmup_cosine(peak, steps=steps, warmup_steps=self.warmup_steps)

    def before_the_end(self) -> dict[str, int]:
        """The steps of the warm-up."""
        return {"warmup_steps": self.warmup_steps}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stairs(Schedule):
    """Constant, multiplied by `factor` at each of `at_steps`."""

    name: Literal["stairs"]
    at_steps: Annotated[tuple[Natural, ...], Ascending()]
    factor: Positive = 0.1

    def over(self, steps: int, *, peak: float) -> optax.Schedule:
        """See `kdjax.train.optimizers.stairs`."""
        return optimizers.stairs(peak, at_steps=self.at_steps, factor=self.factor)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Constant(Schedule):
    """The peak, always."""

    name: Literal["constant"]

    def over(self, steps: int, *, peak: float) -> optax.Schedule:
        """The peak."""
        return optax.constant_schedule(peak)


class Optimizer(Choice, abc.ABC):
    """What changes the parameters."""

    if TYPE_CHECKING:
        clip_norm: Any
        decayed: Any
        layer_decay: Any
        layers: Any
        rates: Any
        weight_decay: Any
        """Of one that has updates."""

    @abc.abstractmethod
    def updates(self, steps: int, *, begin_step: int = 0) -> optax.GradientTransformation | None:
        """Gradients to updates; None where no parameter changes.

        Args:
          steps: of the stage.
          begin_step: of these, the first one that it makes.
        """

    @property
    def freezing(self) -> Freezing | None:
        """What does not change while the rest does, None for nothing."""
        return None

    def before_the_end(self) -> dict[str, int]:
        """Steps that must be before the stage's last, by field."""
        return {}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scheduled(Optimizer):
    """What every optimizer has that changes parameters.

    Attributes:
      learning_rate: the largest.
      schedule: of the learning rate.
      weight_decay: of the parameters that decay.
      decayed: pattern of their names.
      clip_norm: largest norm of all gradients together, None for any.
      frozen: pattern of the names of parameters that keep their bits. They have no gradient, decay or
        penalty; what is frozen may not be pruned.
      unfreeze: pairs of a pattern and a step until which such parameters are frozen, also where `frozen`
        matches them, too; the first that matches counts. An optimizer begins with them there.
      frozen_statistics: a BatchNorm whose parameters are frozen keeps its running statistics and
        normalises with them, as fine-tuning usually does; else it follows the batches.
      layer_decay: the learning rate of each layer is this times that of the one after it; that of the
        classifier is whole. See `kdjax.train.rates`.
      layers: patterns of the names of parameters from the input on; a pattern with groups is a layer for
        each of their values, such as `encoder/block([0-9]+)/.*`. By default the parts of the encoder
        whose names have a number, and what is before the first of them.
      rates: pairs of a pattern and what the learning rate is multiplied by; the first that matches
        counts.
    """

    learning_rate: Positive
    schedule: Schedule = Cosine(name="cosine")
    weight_decay: NonNegative = 0.0
    decayed: Regex = KERNELS
    clip_norm: Positive | None = None
    frozen: Regex | None = None
    unfreeze: tuple[tuple[Regex, Count], ...] = ()
    frozen_statistics: bool = True
    layer_decay: Annotated[float, In("(0, 1]")] | None = None
    layers: tuple[Regex, ...] = ()
    rates: tuple[tuple[Regex, Positive], ...] = ()

    @property
    def freezing(self) -> Freezing | None:
        """See `kdjax.train.Freezing`."""
        if self.frozen is None and not self.unfreeze:
            return None
        return Freezing(self.frozen, self.unfreeze, self.frozen_statistics)

    def before_the_end(self) -> dict[str, int]:
        """Those of the schedule, and those from which on parameters are trained."""
        found = {f"schedule.{n}": step for n, step in self.schedule.before_the_end().items()}
        return found | {f"unfreeze[{i}][1]": step for i, (_, step) in enumerate(self.unfreeze)}

    def faults(self) -> Iterator[Fault]:
        """Fields that do not go together."""
        if self.layers and self.layer_decay is None:
            yield "layers, layer_decay", "there is no layer_decay", "give it, or leave them out"
        if not self.frozen_statistics and self.freezing is None:
            yield (
                "frozen_statistics, frozen, unfreeze",
                "nothing is frozen",
                "give a pattern of what is, or leave it out",
            )

    def _rate(self, steps: int, begin_step: int) -> optax.Schedule:
        schedule = self.schedule.over(steps, peak=self.learning_rate)
        return (lambda count: schedule(count + begin_step)) if begin_step else schedule


@dataclasses.dataclass(frozen=True, kw_only=True)
class SGD(Scheduled):
    """See `kdjax.train.optimizers.sgd`. All parameters decay by default, as in PyTorch."""

    name: Literal["sgd"]
    momentum: Decay = 0.9
    nesterov: bool = False
    decayed: Regex = ".*"

    def updates(self, steps: int, *, begin_step: int = 0) -> optax.GradientTransformation:
        """See `kdjax.train.optimizers.sgd`."""
        return optimizers.sgd(
            self._rate(steps, begin_step),
            momentum=self.momentum,
            nesterov=self.nesterov,
            weight_decay=self.weight_decay,
            decayed=self.decayed,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdamW(Scheduled):
    """See `kdjax.train.optimizers.adamw`. Kernels alone decay by default."""

    name: Literal["adamw"]
    b1: Decay = 0.9
    b2: Decay = 0.999

    def updates(self, steps: int, *, begin_step: int = 0) -> optax.GradientTransformation:
        """See `kdjax.train.optimizers.adamw`."""
        return optimizers.adamw(
            self._rate(steps, begin_step),
            b1=self.b1,
            b2=self.b2,
            weight_decay=self.weight_decay,
            decayed=self.decayed,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class LARS(Scheduled):
    """See `kdjax.train.optimizers.lars`. Kernels alone decay and are scaled by default."""

    name: Literal["lars"]
    momentum: Decay = 0.9
    trust: Positive = 0.001

    def updates(self, steps: int, *, begin_step: int = 0) -> optax.GradientTransformation:
        """See `kdjax.train.optimizers.lars`."""
        return optimizers.lars(
            self._rate(steps, begin_step),
            momentum=self.momentum,
            trust=self.trust,
            weight_decay=self.weight_decay,
            decayed=self.decayed,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Frozen(Optimizer):
    """No parameter changes: what an encoder is worth as it begins, but for BatchNorm's statistics."""

    name: Literal["frozen"]

    def updates(self, steps: int, *, begin_step: int = 0) -> None:
        """None."""
