"""What a cache keeps of a teacher's output."""

import abc
import dataclasses
from typing import Annotated, ClassVar, Literal

from kdjax import teacher
from kdjax.choice import Choice
from kdjax.config.fields import Count, Positive
from kdjax.ranges import AtLeast, Distinct

At = Literal["all", "hidden"]
"""Positions of a text."""


class Signal(Choice, abc.ABC):
    """What is kept of the output.

    Attributes:
      of_features: it is of the teacher's features and not of the softmax of its classes.
    """

    of_features: ClassVar[bool] = False

    @property
    def of_hidden(self) -> bool:
        """Whether of positions those alone are kept that the views hide."""
        return False

    @abc.abstractmethod
    def kept(self, outputs: int, *, dtype: Literal["float16", "float32"]) -> teacher.Vector:
        """The signal of one teacher.

        Args:
          outputs: of the teacher: its classes, at each position if there are any; or the width of its
            features.
          dtype: of the stored numbers.
        """


@dataclasses.dataclass(frozen=True, kw_only=True)
class FullLogits(Signal):
    """All logits: any temperature, `classes` numbers a view.

    Attributes:
      at: of texts, which positions are kept: `all` that are no padding, or those that are `hidden`.
    """

    name: Literal["logits"]
    at: At = "all"

    @property
    def of_hidden(self) -> bool:
        """Whether of positions those alone are kept that the views hide."""
        return self.at == "hidden"

    def kept(self, outputs: int, *, dtype: Literal["float16", "float32"]) -> teacher.Logits:
        """See `kdjax.teacher.Logits`."""
        return teacher.Logits(classes=outputs, dtype=dtype)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TopK(Signal):
    """The `k` largest log-probabilities and the exact mass of all others: see `kdjax.teacher.TopK`.

    Attributes:
      k: how many classes are kept by name.
      temperatures: at which students may learn.
      at: of texts, which positions are kept: `all` that are no padding, or those that are `hidden`.
    """

    name: Literal["top_k"]
    k: Count
    temperatures: Annotated[tuple[Positive, ...], AtLeast(1), Distinct()]
    at: At = "all"

    @property
    def of_hidden(self) -> bool:
        """Whether of positions those alone are kept that the views hide."""
        return self.at == "hidden"

    def kept(self, outputs: int, *, dtype: Literal["float16", "float32"]) -> teacher.TopK:
        """See `kdjax.teacher.TopK`."""
        return teacher.TopK(classes=outputs, k=self.k, temperatures=self.temperatures, dtype=dtype)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Embedding(Signal):
    """The features of the teacher's encoder: no labels, no classes, for `distill_encoder`."""

    name: Literal["embedding"]

    of_features: ClassVar = True

    def kept(self, outputs: int, *, dtype: Literal["float16", "float32"]) -> teacher.Embedding:
        """See `kdjax.teacher.Embedding`."""
        return teacher.Embedding(dim=outputs, dtype=dtype)
