"""What every stage has; each kind is a subclass, told by its `kind`."""

import abc
import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from kdjax.choice import Choice
from kdjax.config.fields import Seed, untracked


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage(Choice, abc.ABC):
    """What every stage has.

    `kdjax.stages` has a module of the name of each kind, with what it does.

    Attributes:
      seed: it is run for this seed alone, and every seed of the run takes what it left: one teacher of
        many students. What it needs has the same seed. None: it is run for each seed of the run.
    """

    tag: ClassVar[str] = "kind"

    if TYPE_CHECKING:
        kind: Any

    seed: Seed | None = untracked(
        None
    )  # the seed that a stage is run for is part of its fingerprint

    @abc.abstractmethod
    def needs(self, stages: Mapping[str, "Stage"]) -> tuple[str, ...]:
        """Names of the stages that this one reads."""

    def is_measured(self) -> bool:
        """Whether what it leaves is scored on test examples and their labels."""
        return False

    def leaves_model(self) -> bool:
        """Whether what is scored is a model that it leaves: it can be scored again as it is."""
        return False

    def seed_of(self, seed: int) -> int:
        """The seed that it is run for, in a run of this one."""
        return seed if self.seed is None else self.seed
