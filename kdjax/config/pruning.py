"""What is pruned while a stage trains, and how."""

import dataclasses
from collections.abc import Iterator
from typing import Annotated, Literal

from kdjax.config.fields import KERNELS, Count, Natural, Regex, Sparsity
from kdjax.ranges import AtLeast, In
from kdjax.types import Fault


@dataclasses.dataclass(frozen=True, kw_only=True)
class Weights:
    """Single weights."""

    name: Literal["weights"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class NM:
    """Of every `m` consecutive weights along the inputs `n` stay: 2:4, 4:8. There is no sparsity."""

    name: Literal["n_m"]
    n: Count = 2
    m: Count = 4

    def faults(self) -> Iterator[Fault]:
        """Fields that do not go together."""
        if self.n > self.m:
            yield "n, m", f"{self.n} of {self.m} cannot stay", "give at most m"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Blocks:
    """Blocks of (inputs, outputs)."""

    name: Literal["blocks"]
    shape: tuple[Count, Count] = (4, 4)


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
      sparsity: share that is pruned in the end; a pattern of N of M has none.
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
    begin_step: Natural
    end_step: Count
    every_steps: Count
    sparsity: Sparsity | None = None
    schedule: Literal["cubic", "linear", "one_shot", "periodic"] = "cubic"
    rounds: Count = 5
    score: Literal["magnitude", "saliency", "random"] = "magnitude"
    pattern: Pattern = Weights(name="weights")
    allocation: (
        Literal["uniform", "erk", "global"]
        | Annotated[tuple[tuple[Regex, Sparsity], ...], AtLeast(1)]
    ) = "uniform"
    prunable: Regex = KERNELS

    def faults(self) -> Iterator[Fault]:
        """Fields that do not go together."""
        yield from _moves(self)
        length = self.end_step - self.begin_step
        if self.schedule == "periodic" and self.rounds > length:
            yield (
                "rounds, begin_step, end_step, schedule",
                f"{self.rounds} do not fit into the {length} steps from begin to end",
            )
        if self.sparsity is None and not isinstance(self.pattern, NM):
            yield "sparsity, pattern", "missing", "it takes a number in [0, 1)"
        if self.sparsity is not None and isinstance(self.pattern, NM):
            yield "sparsity, pattern", "a pattern of N of M has none", "leave it out"
        if self.allocation == "global" and not isinstance(self.pattern, Weights | Units):
            yield "allocation, pattern", "one ranking is over single weights", "take uniform"


@dataclasses.dataclass(frozen=True, kw_only=True)
class SparseTraining:
    """Sparse from the first step, with masks that move: RigL, or SET, which grows at random.

    Attributes:
      method: what grows: where the gradient is largest, or at random.
      sparsity: share of the prunable weights, always.
      begin_step, end_step, every_steps: when the masks move.
      fraction: of the kept weights that are exchanged at first; it falls to zero like a half cosine.
      allocation: ERK, or every tensor alike.
      prunable: pattern of the names of the parameters to prune.
    """

    name: Literal["sparse_training"]
    sparsity: Annotated[float, In("(0, 1)")]
    end_step: Count
    every_steps: Count
    begin_step: Natural = 0
    method: Literal["rigl", "set"] = "rigl"
    fraction: Annotated[float, In("(0, 1)")] = 0.3
    allocation: Literal["uniform", "erk"] = "erk"
    prunable: Regex = KERNELS

    def faults(self) -> Iterator[Fault]:
        """Fields that do not go together."""
        yield from _moves(self)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ticket:
    """A lottery ticket: the masks of what `start_from` has become, on what it once was.

    `start_from` is a stage with a `rewind_step`; this one begins from the parameters that it had
    then, masked where it is smallest in the end, and hands them on to the ticket after it.

    Attributes:
      sparsity: share of the prunable weights that is masked in the end.
      fresh: begin from new random parameters instead: what a winning ticket is held against.
      allocation: every tensor alike, ERK, or one ranking over all.
      prunable: pattern of the names of the parameters to prune.
    """

    name: Literal["ticket"]
    sparsity: Sparsity
    fresh: bool = False
    allocation: Literal["uniform", "erk", "global"] = "uniform"
    prunable: Regex = KERNELS


Prune = Gradual | SparseTraining | Ticket


def _moves(c: Gradual | SparseTraining) -> Iterator[Fault]:
    """Masks that never move, or only after they are to stay."""
    if c.begin_step >= c.end_step:
        yield (
            "begin_step, end_step",
            f"{c.begin_step} is not in [0, end_step), and end_step is {c.end_step}",
        )
