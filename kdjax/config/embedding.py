"""How an encoder is held against the embedding of its teacher."""

import dataclasses
from collections.abc import Iterator
from typing import Literal

from kdjax.config.fields import Count, NonNegative, Positive


@dataclasses.dataclass(frozen=True, kw_only=True)
class EmbeddingCosine:
    """`1 - cos` with the teacher's own row: see `kdjax.losses.embedding_cosine`."""

    name: Literal["cosine"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class EmbeddingMSE:
    """The squared difference from the teacher's own row: see `kdjax.losses.embedding_mse`."""

    name: Literal["mse"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class EmbeddingSEED:
    """How near a row is to a queue of the teacher's: see `kdjax.losses.seed`.

    Attributes:
      queue: rows of earlier batches: a multiple of the examples that go through the model at once.
      student_temperature: divisor of the student's cosines.
      teacher_temperature: divisor of the teacher's.
    """

    name: Literal["seed"]
    queue: Count = 65_536
    student_temperature: Positive = 0.2
    teacher_temperature: Positive = 0.01


@dataclasses.dataclass(frozen=True, kw_only=True)
class EmbeddingCompRess:
    """How near a row is to its own side's queue of the same examples: see `kdjax.losses.compress`.

    Attributes:
      queue: rows of earlier batches, of each side: a multiple of the examples that go through the
        model at once.
      temperature: divisor of the cosines of both sides.
    """

    name: Literal["compress"]
    queue: Count = 131_072
    temperature: Positive = 0.04


@dataclasses.dataclass(frozen=True, kw_only=True)
class EmbeddingRKD:
    """Distances and angles in the batch: `kdjax.losses.rkd_distance`, `kdjax.losses.rkd_angle`.

    Attributes:
      distance_weight: of the distances.
      angle_weight: of the angles, whose memory grows with the cube of the batch; 0 leaves them out.
    """

    name: Literal["rkd"]
    distance_weight: NonNegative = 25.0
    angle_weight: NonNegative = 50.0

    def faults(self) -> Iterator[tuple[str, str]]:
        """Fields that do not go together."""
        if not self.distance_weight + self.angle_weight:
            yield (
                "distance_weight, angle_weight",
                "it is zero, and angle_weight, too; give one of them a weight",
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class EmbeddingSimilarity:
    """Which examples of the batch are alike: see `kdjax.losses.similarity_preserving`.

    Attributes:
      weight: of it.
    """

    name: Literal["similarity"]
    weight: Positive = 3000.0


EmbeddingMethod = (
    EmbeddingCosine
    | EmbeddingMSE
    | EmbeddingSEED
    | EmbeddingCompRess
    | EmbeddingRKD
    | EmbeddingSimilarity
)
