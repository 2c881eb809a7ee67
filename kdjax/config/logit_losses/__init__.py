"""How the logits of a student are compared with its teacher's: a file each, or a family.

Each class has the fields of a config and makes the comparison of them.
"""

import abc
from typing import ClassVar

from jaxtyping import Array, Bool, Float

from kdjax.choice import Choice, import_all
from kdjax.distill import Compare
from kdjax.types import Batch


class LogitLoss(Choice, abc.ABC):
    """How logits are compared.

    Attributes:
      least_rows: how many examples must meet in a step for it to say something.
      takes_top_k: it needs no more than the largest logits and the mass of the others.
      at_positions: it compares row with row, and so also the positions of examples, or it is of them.
      of_blank: it is of frames that may be blank, the first of the classes of CTC.
      delay: positions by which the student answers later than its teacher; a field where it may be set.
      reads_temperature: the stage's temperature is that of its softmaxes.
    """

    least_rows: ClassVar[int] = 1
    takes_top_k: ClassVar[bool] = False
    at_positions: ClassVar[bool] = False
    of_blank: ClassVar[bool] = False
    delay = 0
    reads_temperature: ClassVar[bool] = True

    @abc.abstractmethod
    def between(self, temperature: float | Float[Array, ""], axis_name: str | None) -> Compare:
        """`(student logits, teacher logits, batch) -> losses`, of a loss that sees all logits.

        Args:
          temperature: of both softmaxes.
          axis_name: mapped axis of the batch.
        """

    def rows(self, batch: Batch) -> Bool[Array, "batch ..."] | None:
        """Which rows, or positions of them, it concerns; None for all."""
        return None


import_all(__name__, __path__)
