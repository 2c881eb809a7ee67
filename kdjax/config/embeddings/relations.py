"""How the rows of a batch lie to one another."""

import dataclasses
from collections.abc import Iterator
from typing import ClassVar, Literal

from kdjax import losses, train
from kdjax.config.embeddings import EmbeddingMethod, of_rows
from kdjax.config.fields import NonNegative, Positive, all_zero
from kdjax.types import Fault


@dataclasses.dataclass(frozen=True, kw_only=True)
class EmbeddingRKD(EmbeddingMethod):
    """Distances and angles in the batch: `kdjax.losses.rkd_distance`, `kdjax.losses.rkd_angle`.

    Attributes:
      distance_weight: of the distances.
      angle_weight: of the angles, whose memory grows with the cube of the batch; 0 leaves them out.
    """

    name: Literal["rkd"]
    distance_weight: NonNegative = 25.0
    angle_weight: NonNegative = 50.0

    def faults(self) -> Iterator[Fault]:
        """Fields that do not go together."""
        yield from all_zero(self, "distance_weight", "angle_weight")

    least_rows: ClassVar = 3

    def terms(self, *, axis_name: str | None = None) -> train.Terms:
        """See `kdjax.losses.rkd_distance` and `kdjax.losses.rkd_angle`."""
        distance = of_rows(losses.rkd_distance, axis_name=axis_name)
        found: dict[str, tuple[train.Number, train.Term]] = {
            "distance": (self.distance_weight, distance)
        }
        if self.angle_weight:
            found["angle"] = (self.angle_weight, of_rows(losses.rkd_angle, axis_name=axis_name))
        return found


@dataclasses.dataclass(frozen=True, kw_only=True)
class EmbeddingSimilarity(EmbeddingMethod):
    """Which examples of the batch are alike: see `kdjax.losses.similarity_preserving`.

    Attributes:
      weight: of it.
    """

    name: Literal["similarity"]
    weight: Positive = 3000.0

    least_rows: ClassVar = 2

    def terms(self, *, axis_name: str | None = None) -> train.Terms:
        """See `kdjax.losses.similarity_preserving`."""
        term = of_rows(losses.similarity_preserving, axis_name=axis_name)
        return {"similarity": (self.weight, term)}
