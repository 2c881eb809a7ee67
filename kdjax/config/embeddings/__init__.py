"""How an encoder is held against the embedding of its teacher: a file a family."""

import abc
from collections.abc import Callable
from typing import ClassVar

from jaxtyping import Array, Key

from kdjax import train
from kdjax.choice import Choice, import_all

STUDENT, TEACHER = "student", "teacher"
"""Of what a method remembers: whose rows."""


class EmbeddingMethod(Choice, abc.ABC):
    """How the projections of a student are held against `teacher_embedding`.

    Attributes:
      least_rows: how many examples must meet in a step for it to say something.
      row_by_row: each row is compared with the teacher's own, so both have one width.
    """

    least_rows: ClassVar[int] = 1
    row_by_row: ClassVar[bool] = False

    @abc.abstractmethod
    def terms(self, *, axis_name: str | None = None) -> train.Terms:
        """The weighted terms, of `projections`, `teacher_embedding` and the queues."""

    @property
    def remembered(self) -> int:
        """Rows of earlier batches that it remembers of each side, 0 for none."""
        return 0

    def memory(self, key: Key[Array, ""], *, student: int, teacher: int) -> dict[str, Array]:
        """What it remembers before its first step, by side: random unit rows; empty without a queue.

        Args:
          key: of the stream that the rows are drawn from.
          student: width of the projections.
          teacher: width of the teacher's embedding.
        """
        return {}


def of_rows(loss: Callable[..., Array], **numbers: float | str | None) -> train.Term:
    """The term of a loss of both sides' rows."""
    return lambda out, batch: loss(out["projections"], batch["teacher_embedding"], **numbers)


import_all(__name__, __path__)
