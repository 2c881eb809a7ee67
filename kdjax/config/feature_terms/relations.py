"""Terms that relate the features of a batch to one another."""

import dataclasses
from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

from kdjax import distill
from kdjax.config.feature_terms import Vectors
from kdjax.config.fields import NonNegative, Positive, all_zero
from kdjax.config.training import Weight
from kdjax.distill import Comparison, Taps
from kdjax.ranges import In
from kdjax.types import Fault


@dataclasses.dataclass(frozen=True, kw_only=True)
class RKD(Vectors):
    """`distance` x `kdjax.losses.rkd_distance` + `angle` x `kdjax.losses.rkd_angle`."""

    name: Literal["rkd"]
    weight: Weight = 1.0
    distance: NonNegative = 25.0
    angle: NonNegative = 50.0

    def faults(self) -> Iterator[Fault]:
        """Fields that do not go together."""
        yield from all_zero(self, "distance", "angle")

    least_rows: ClassVar = 3

    def comparison(self, taps: Taps) -> Comparison:
        """See `kdjax.distill.rkd`."""
        return distill.rkd(
            distance=self.distance, angle=self.angle, axis_name=taps.compute.axis_name
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Similarity(Vectors):
    """`kdjax.losses.similarity_preserving`."""

    name: Literal["similarity"]
    weight: Weight = 3000.0

    least_rows: ClassVar = 2

    def comparison(self, taps: Taps) -> Comparison:
        """See `kdjax.distill.similarity`."""
        return distill.similarity(axis_name=taps.compute.axis_name)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Correlation(Vectors):
    """`kdjax.losses.correlation_congruence`."""

    name: Literal["correlation"]
    weight: Weight = 0.02
    gamma: Positive = 0.4
    order: Annotated[int, In("[1, 100]")] = 2

    least_rows: ClassVar = 2

    def comparison(self, taps: Taps) -> Comparison:
        """See `kdjax.distill.correlation`."""
        return distill.correlation(
            gamma=self.gamma, order=self.order, axis_name=taps.compute.axis_name
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class PKT(Vectors):
    """`kdjax.losses.pkt`."""

    name: Literal["pkt"]
    weight: Weight = 30_000.0

    least_rows: ClassVar = 2

    def comparison(self, taps: Taps) -> Comparison:
        """See `kdjax.distill.pkt`."""
        return distill.pkt(axis_name=taps.compute.axis_name)
