"""Against a queue of earlier rows."""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar, Literal

from jaxtyping import Array, Key

from kdjax import keys, losses, train
from kdjax.config.embeddings import STUDENT, TEACHER, EmbeddingMethod
from kdjax.config.fields import Count, Positive


@dataclasses.dataclass(frozen=True, kw_only=True)
class EmbeddingSEED(EmbeddingMethod):
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

    row_by_row: ClassVar = True

    def terms(self, *, axis_name: str | None = None) -> train.Terms:
        """See `kdjax.losses.seed`."""

        def seed(out, batch):
            return losses.seed(
                out["projections"],
                batch["teacher_embedding"],
                out["teacher_queue"],
                student_temperature=self.student_temperature,
                teacher_temperature=self.teacher_temperature,
            )

        return {"seed": (1.0, seed)}

    @property
    def remembered(self) -> int:
        """Rows of earlier batches."""
        return self.queue

    def memory(self, key: Key[Array, ""], *, student: int, teacher: int) -> dict[str, Array]:
        """The teacher's rows."""
        return _drawn(key, self.queue, {TEACHER: teacher})


@dataclasses.dataclass(frozen=True, kw_only=True)
class EmbeddingCompRess(EmbeddingMethod):
    """How near a row is to its own side's queue of the same examples: see `kdjax.losses.compress`.

    Attributes:
      queue: rows of earlier batches, of each side: a multiple of the examples that go through the
        model at once.
      temperature: divisor of the cosines of both sides.
    """

    name: Literal["compress"]
    queue: Count = 131_072
    temperature: Positive = 0.04

    def terms(self, *, axis_name: str | None = None) -> train.Terms:
        """See `kdjax.losses.compress`."""

        def compress(out, batch):
            return losses.compress(
                out["projections"],
                batch["teacher_embedding"],
                out["student_queue"],
                out["teacher_queue"],
                temperature=self.temperature,
            )

        return {"compress": (1.0, compress)}

    @property
    def remembered(self) -> int:
        """Rows of earlier batches."""
        return self.queue

    def memory(self, key: Key[Array, ""], *, student: int, teacher: int) -> dict[str, Array]:
        """The rows of both sides."""
        return _drawn(key, self.queue, {STUDENT: student, TEACHER: teacher})


def _drawn(key: Key[Array, ""], rows: int, widths: Mapping[str, int]) -> dict[str, Array]:
    """Random unit rows of each side, from a stream of its own."""
    return {
        side: losses.random_queue(keys.stream(key, side), size=rows, dim=width)
        for side, width in widths.items()
    }
