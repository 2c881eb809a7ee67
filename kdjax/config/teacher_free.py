"""A virtual teacher."""

import dataclasses
from collections.abc import Iterator
from typing import Annotated

from kdjax.config.fields import NonNegative, Positive, all_zero
from kdjax.ranges import In
from kdjax.types import Fault


@dataclasses.dataclass(frozen=True, kw_only=True)
class TeacherFree:
    """A virtual teacher made of the label alone: see `kdjax.losses.tf_kd`.

    Attributes:
      correct_probability: that it gives the label.
      temperature: of both softmaxes.
      weight: of the KL to it, with the factor of a squared temperature that every KL here has. The
        paper's equation has none: its `alpha` is this times `temperature^2`.
      ce_weight: of the cross-entropy with the label.
    """

    correct_probability: Annotated[float, In("(0, 1)")] = 0.99
    temperature: Positive = 20.0
    weight: NonNegative = 0.1
    ce_weight: NonNegative = 0.9

    def faults(self) -> Iterator[Fault]:
        """Fields that do not go together."""
        yield from all_zero(self, "weight", "ce_weight")
