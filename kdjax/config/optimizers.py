"""Optimizers, and how their learning rates change."""

import abc
import dataclasses
from typing import TYPE_CHECKING, Annotated, Any, Literal

import optax

from kdjax.choice import Choice
from kdjax.config.fields import KERNELS, Decay, Natural, NonNegative, Positive, Regex
from kdjax.ranges import Ascending
from kdjax.train import optimizers


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
        """Of one that has updates."""

    @abc.abstractmethod
    def updates(self, steps: int) -> optax.GradientTransformation | None:
        """Gradients to updates, over so many steps; None where no parameter changes."""

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
    """

    learning_rate: Positive
    schedule: Schedule = Cosine(name="cosine")
    weight_decay: NonNegative = 0.0
    decayed: Regex = KERNELS
    clip_norm: Positive | None = None

    def before_the_end(self) -> dict[str, int]:
        """Those of the schedule."""
        return {f"schedule.{n}": step for n, step in self.schedule.before_the_end().items()}

    def _rate(self, steps: int) -> optax.Schedule:
        return self.schedule.over(steps, peak=self.learning_rate)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SGD(Scheduled):
    """See `kdjax.train.optimizers.sgd`. All parameters decay by default, as in PyTorch."""

    name: Literal["sgd"]
    momentum: Decay = 0.9
    nesterov: bool = False
    decayed: Regex = ".*"

    def updates(self, steps: int) -> optax.GradientTransformation:
        """See `kdjax.train.optimizers.sgd`."""
        return optimizers.sgd(
            self._rate(steps),
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

    def updates(self, steps: int) -> optax.GradientTransformation:
        """See `kdjax.train.optimizers.adamw`."""
        return optimizers.adamw(
            self._rate(steps),
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

    def updates(self, steps: int) -> optax.GradientTransformation:
        """See `kdjax.train.optimizers.lars`."""
        return optimizers.lars(
            self._rate(steps),
            momentum=self.momentum,
            trust=self.trust,
            weight_decay=self.weight_decay,
            decayed=self.decayed,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Frozen(Optimizer):
    """No parameter changes: what an encoder is worth as it begins, but for BatchNorm's statistics."""

    name: Literal["frozen"]

    def updates(self, steps: int) -> None:
        """None."""
