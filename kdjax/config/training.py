"""Optimizers, schedules, and what every stage has that trains."""

import dataclasses
from typing import Literal

from kdjax.config.fields import KERNELS, aside
from kdjax.config.pruning import Prune


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cosine:
    """Linear warm-up, then a half cosine to zero at the stage's last step."""

    name: Literal["cosine"]
    warmup_steps: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stairs:
    """Constant, multiplied by `factor` at each of `at_steps`."""

    name: Literal["stairs"]
    at_steps: tuple[int, ...]
    factor: float = 0.1


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
    begin_step: int = 0
    end_step: int | None = None
    shape: Literal["linear", "cosine"] = "linear"


Number = float | Ramp
"""A number of a method, or how it changes over the steps."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SGD:
    """See `kdjax.train.optimizers.sgd`. All parameters decay by default, as in PyTorch."""

    name: Literal["sgd"]
    learning_rate: float
    schedule: Schedule = Cosine(name="cosine")
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 0.0
    decayed: str = ".*"
    clip_norm: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdamW:
    """See `kdjax.train.optimizers.adamw`. Kernels alone decay by default."""

    name: Literal["adamw"]
    learning_rate: float
    schedule: Schedule = Cosine(name="cosine")
    b1: float = 0.9
    b2: float = 0.999
    weight_decay: float = 0.0
    decayed: str = KERNELS
    clip_norm: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class LARS:
    """See `kdjax.train.optimizers.lars`. Kernels alone decay and are scaled by default."""

    name: Literal["lars"]
    learning_rate: float
    schedule: Schedule = Cosine(name="cosine")
    momentum: float = 0.9
    trust: float = 0.001
    weight_decay: float = 0.0
    decayed: str = KERNELS
    clip_norm: float | None = None


Optimizer = SGD | AdamW | LARS


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training:
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

    steps: int
    batch: int
    optimizer: Optimizer
    ema: float | None = None
    accumulate: int = 1
    prune: Prune | None = None
    scale_l1: float = 0.0
    rewind_step: int | None = None
    dtype: Literal["float32", "bfloat16"] = "float32"
    checkpoint_every_steps: int = aside(1000)
    log_every_steps: int = aside(50)
    dispatch_steps: int = aside(0)
