"""A comparison of features of the user's."""

import dataclasses
import functools
import inspect
from collections.abc import Iterator
from typing import ClassVar

from kdjax.config import held, own
from kdjax.config.feature_terms import FeatureTerm, Paths
from kdjax.config.training import Weight
from kdjax.distill import Comparison, Taps
from kdjax.types import Fault


@dataclasses.dataclass(frozen=True, kw_only=True)
class OwnFeatures(own.Own, FeatureTerm):
    """A comparison of the user's: `(student, teacher, *, ...) -> losses` [batch], or a scalar.

    Both are lists of arrays [batch, ...], in the order of the paths; by default what the classifier
    sees. It may take `axis_name`, the mapped axis of the batch, and `where` [batch, position], True at
    positions that are no padding, or None where there is none; features of positions of examples that
    differ in length are given only to one that takes it.
    """

    called_with: ClassVar[tuple[str, ...]] = ("student", "teacher")
    offered: ClassVar[tuple[str, ...]] = ("where", "axis_name")

    weight: Weight = 1.0
    student: Paths = ("encoder",)
    teacher: Paths = ("encoder",)

    def faults(self) -> Iterator[Fault]:
        """Those of the function, and of the paths."""
        yield from super().faults()
        yield from FeatureTerm.faults(self)

    def comparison(self, taps: Taps) -> Comparison:
        """The function of all of them at once."""
        function = self.made("function", axis_name=taps.compute.axis_name)

        def compared(connected, student, teacher, **where):
            of = functools.partial(function, **where)
            return [held.features(of, student, teacher, said=self.function)]

        if "where" in inspect.signature(self.loaded).parameters:
            return Comparison(at_positions=compared)
        return Comparison(compared)
