"""What tasks have in common whose answers are logits at each position of an example."""

from typing import ClassVar

from jaxtyping import Array, Float

from kdjax import teacher, train
from kdjax.tasks.base import Softmaxes
from kdjax.tasks.classification import OfClasses
from kdjax.types import BadInput


class OfPositions(OfClasses):
    """Answers [batch, positions, classes]; see `Task`.

    What a teacher says is learned at all positions that are no padding, as the encoder's own mask says;
    at all of them where it gives none.
    """

    features: ClassVar[tuple[str, ...]] = ("batch", "positions", "dim")

    def signal(
        self, dtype: str, *, positions: int | None = None
    ) -> teacher.Vector | teacher.Positions:
        """All logits of each position."""
        return self.each(teacher.Logits(classes=self.classes, dtype=dtype), positions=positions)

    def taught(
        self,
        signal: teacher.Signal,
        softmaxes: Softmaxes,
        *,
        teacher_weights: Float[Array, " teachers"] | None = None,
        axis_name: str | None = None,
    ) -> train.Term:
        """The distance of the softmaxes at each position that the mask of the student has, if any.

        Raises:
          BadInput: the loss is not one of single rows.
        """
        if not softmaxes.loss.at_positions:
            raise BadInput(
                "logits",
                f"{softmaxes.loss.name} is of whole examples, and the task is {self.name}",
                "give kl, ce or mse",
            )
        return super().taught(
            signal, softmaxes, teacher_weights=teacher_weights, axis_name=axis_name
        )
