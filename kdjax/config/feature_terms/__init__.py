"""Which features of a student are compared with its teacher's, and how: a file a family.

Each class has the fields of a config and makes the comparison of them, see `kdjax.distill`. The weights
are by default those of mdistiller (https://github.com/megvii-research/mdistiller), where the
cross-entropy has a weight of one and there is no term of the logits; those of `correlation` and `fsp`
are RepDistiller's and one. They are for CIFAR-100: a term's size depends on the network.
"""

import abc
import dataclasses
from collections.abc import Iterator
from typing import Annotated, ClassVar

from jaxtyping import Array, Key

from kdjax import distill
from kdjax.choice import Choice, import_all
from kdjax.config.fields import Text
from kdjax.config.training import Weight
from kdjax.distill import Comparison, Taps
from kdjax.ranges import AtLeast
from kdjax.types import Fault, PyTree

Paths = Annotated[tuple[Text, ...], AtLeast(1)]
"""Of modules, by the names of their parameters."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class FeatureTerm(Choice, abc.ABC):
    """Which features of the student are compared with which of the teacher.

    Attributes:
      weight: in the loss.
      student: paths of modules whose outputs are looked at, by the names of their parameters:
        `encoder/stage1_block0`. An activation that comes after the module is not in its output.
      teacher: as many of the teacher's, or any number where one of the student goes with all.
    """

    least_rows: ClassVar[int] = 1
    """How many examples must meet in a step for it to say something."""

    least: ClassVar[int] = 1
    """How many paths it takes at least."""

    most: ClassVar[int] = 0
    """How many it takes at most, 0 for any number."""

    parts: ClassVar[tuple[str, ...]] = ("",)
    """What is tapped at each path: the module there, or some that are in it."""

    paired: ClassVar[bool] = True
    """Each path of the student goes with one of the teacher; otherwise one goes with all."""

    reads_norms: ClassVar[bool] = False
    """It takes the margins of the teacher's BatchNorms."""

    weight: Weight
    student: Paths
    teacher: Paths

    def faults(self) -> Iterator[Fault]:
        """Fields that do not go together."""
        if not self.paired and len(self.student) != 1:
            yield "student", f"{len(self.student)} paths, and one goes with all", "give one path"
        if self.paired and len(self.student) != len(self.teacher):
            yield (
                "teacher, student",
                f"{len(self.teacher)} paths for {len(self.student)} of the student",
                "give one for each",
            )
        if len(self.student) < self.least:
            yield "student", "it is of two maps", "give two paths or more"
        if self.most and len(self.student) > self.most:
            yield "student", "it has one memory", "give one path"

    def tapped(self, paths: Paths) -> Paths:
        """The modules whose outputs it compares, at some of its paths."""
        return tuple(f"{path}{part}" for path in paths for part in self.parts)

    @abc.abstractmethod
    def comparison(self, taps: Taps) -> Comparison:
        """How it compares these features.

        Raises:
          BadInput: it cannot compare such features, or its numbers cannot be.
        """

    @property
    def drawn(self) -> int:
        """How many other examples are drawn for each one; none without a memory."""
        return 0

    def memory(self, key: Key[Array, ""], *, examples: int) -> PyTree | None:
        """What it remembers of each of so many examples at first, None where it has no memory."""
        return None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Maps(FeatureTerm):
    """Feature maps, paired in order; a loss of several pairs is their sum.

    Attributes:
      relu: put a ReLU behind each path: where one is a convolution with its norm alone, as the blocks
        of the CNN are, the model's own ReLU comes after it.
    """

    relu: bool = False

    def comparison(self, taps: Taps) -> Comparison:
        """How it compares these features, behind the ReLU if there is one."""
        return distill.behind_relu(self.compared(taps), self.relu)

    @abc.abstractmethod
    def compared(self, taps: Taps) -> Comparison:
        """How it compares maps as they are."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Vectors(FeatureTerm):
    """Features of a batch, a row for each example; by default those that the classifier sees."""

    student: Paths = ("encoder",)
    teacher: Paths = ("encoder",)


import_all(__name__, __path__)
