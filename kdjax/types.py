"""Names that every part of kdjax shares."""

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeAlias

import jax
import numpy as np

PyTree: TypeAlias = Any

Variables: TypeAlias = Mapping[str, PyTree]
"""A linen variable dict: `{"params": ..., "batch_stats": ...}`."""

Batch: TypeAlias = Mapping[str, Any]
"""Arrays with a leading batch axis, or dicts of them: `id`, `inputs`, `label`, `teacher_logits`..."""


@dataclasses.dataclass(frozen=True)
class Field:
    """One array that every example has.

    Attributes:
      shape: of the array of one example; of a ragged one, of the longest that there may be.
      dtype: its name, as NumPy writes it.
      below: integers are from `least` up to, and without, this number, such as the size of a vocabulary;
        None where all of the dtype's may occur.
      least: see `below`.
      ragged: the first axis of each example has a length of its own, at least 1, which is the example's
        field `length_of(name)`; what is behind it is zeros.
    """

    shape: tuple[int, ...]
    dtype: str
    below: int | None = None
    least: int = 0
    ragged: bool = False

    @property
    def size(self) -> int:
        """Bytes of the array of one example."""
        return int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize

    def batch(self, rows: Any, length: Any = None) -> jax.ShapeDtypeStruct:
        """The shape of so many examples; the number may be symbolic.

        Args:
          rows: how many.
          length: of a ragged field, the longest of them by default; it may be symbolic.
        """
        shape = self.shape
        if self.ragged and length is not None:
            shape = (length, *shape[1:])
        return jax.ShapeDtypeStruct((rows, *shape), np.dtype(self.dtype))

    def made_up(self, rows: int, *, seed: int = 0) -> np.ndarray:
        """Values that may occur, always the same ones: whole ranges of integers, normal floats."""
        random, shape, dtype = (
            np.random.default_rng(seed),
            (rows, *self.shape),
            np.dtype(self.dtype),
        )
        if dtype.kind == "b":
            return random.integers(2, size=shape).astype(bool)
        if dtype.kind not in "iu":
            return random.normal(size=shape).astype(dtype)
        below = int(np.iinfo(dtype).max) + 1 if self.below is None else self.below
        return random.integers(self.least, below, size=shape, dtype=dtype)


Fields: TypeAlias = Mapping[str, Field]
"""The arrays of an example, by name."""


def length_of(field: str) -> str:
    """The name of the field that has the lengths of a ragged one: int32, one number an example."""
    return f"{field}_length"


def length_field(most: int) -> Field:
    """What the lengths of a ragged field are whose longest example has `most` positions."""
    return Field((), "int32", below=most + 1, least=1)


class BadInput(ValueError):
    """What the user gave cannot be used: one line that names the field and the mend.

    The command line prints the line and exits with status 2; nothing is lost.
    """


class StorageFailed(RuntimeError):
    """The storage failed while something was running: one line with what, where and the mend.

    The command line prints the line and exits with status 1; what was finished before stays so.
    """
