"""What is pruned while a stage trains, and how."""

import dataclasses
from typing import Literal

from kdjax.config.fields import KERNELS


@dataclasses.dataclass(frozen=True, kw_only=True)
class Weights:
    """Single weights."""

    name: Literal["weights"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class NM:
    """Of every `m` consecutive weights along the inputs `n` stay: 2:4, 4:8. There is no sparsity."""

    name: Literal["n_m"]
    n: int = 2
    m: int = 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class Blocks:
    """Blocks of (inputs, outputs)."""

    name: Literal["blocks"]
    shape: tuple[int, int] = (4, 4)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Filters:
    """Whole filters of each kernel by itself: masks alone, which may not make the model smaller."""

    name: Literal["filters"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Units:
    """Channels, heads and hidden units with all that goes with them: what `shrink` takes away.

    Attributes:
      score: of a unit: L1 norm of all its weights, of the filter that makes it first, or the mean
        absolute scale of its norms (network slimming, with `scale_l1`).
      ranking: each group by itself, or all units together.
    """

    name: Literal["units"]
    score: Literal["group_l1", "group_l2", "producer_l1", "scale"] = "group_l1"
    ranking: Literal["each", "global"] = "each"


Pattern = Weights | NM | Blocks | Filters | Units


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gradual:
    """More and more is pruned: see `kdjax.prune.gradual`.

    Attributes:
      sparsity: share that is pruned in the end, in [0, 1).
      begin_step: last step that is dense.
      end_step: step at which the sparsity is reached; with `one_shot` all happens at `begin_step`.
      every_steps: distance between the updates of the masks.
      schedule: `cubic` (Zhu and Gupta), `linear`, `one_shot`, `periodic` (equal cuts of what is left).
      rounds: cuts of the periodic schedule.
      score: of a weight: its magnitude, |weight * gradient|, or drawn (a yardstick).
      pattern: what is pruned as one.
      allocation: every tensor alike, ERK, one ranking over all tensors; or by hand, pairs of a pattern
        of names and a sparsity, of which the first that matches counts.
      prunable: pattern of the names of the parameters to prune.
    """

    name: Literal["gradual"]
    begin_step: int
    end_step: int
    every_steps: int
    sparsity: float | None = None
    schedule: Literal["cubic", "linear", "one_shot", "periodic"] = "cubic"
    rounds: int = 5
    score: Literal["magnitude", "saliency", "random"] = "magnitude"
    pattern: Pattern = Weights(name="weights")
    allocation: Literal["uniform", "erk", "global"] | tuple[tuple[str, float], ...] = "uniform"
    prunable: str = KERNELS


@dataclasses.dataclass(frozen=True, kw_only=True)
class SparseTraining:
    """Sparse from the first step, with masks that move: RigL, or SET, which grows at random.

    Attributes:
      method: what grows: where the gradient is largest, or at random.
      sparsity: share of the prunable weights, in (0, 1), always.
      begin_step, end_step, every_steps: when the masks move.
      fraction: of the kept weights that are exchanged at first; it falls to zero like a half cosine.
      allocation: ERK, or every tensor alike.
      prunable: pattern of the names of the parameters to prune.
    """

    name: Literal["sparse_training"]
    sparsity: float
    end_step: int
    every_steps: int
    begin_step: int = 0
    method: Literal["rigl", "set"] = "rigl"
    fraction: float = 0.3
    allocation: Literal["uniform", "erk"] = "erk"
    prunable: str = KERNELS


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ticket:
    """A lottery ticket: the masks of what `start_from` has become, on what it once was.

    `start_from` is a stage with a `rewind_step`; this one begins from the parameters that it had
    then, masked where it is smallest in the end, and hands them on to the ticket after it.

    Attributes:
      sparsity: share of the prunable weights that is masked in the end, in [0, 1).
      fresh: begin from new random parameters instead: what a winning ticket is held against.
      allocation: every tensor alike, ERK, or one ranking over all.
      prunable: pattern of the names of the parameters to prune.
    """

    name: Literal["ticket"]
    sparsity: float
    fresh: bool = False
    allocation: Literal["uniform", "erk", "global"] = "uniform"
    prunable: str = KERNELS


Prune = Gradual | SparseTraining | Ticket
