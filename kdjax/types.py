"""Names that every part of kdjax shares."""

import contextlib
import dataclasses
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any, Literal, TypeAlias

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
      mask: the integer that stands for what is hidden; None where there is none.
      frame: integers that stand for nothing of the example's own, such as what begins and ends a text.
      ragged: the first axis of each example has a length of its own, at least 1, which is the example's
        field `length_of(name)`; what is behind it is zeros.
      shortest: of a ragged one, the fewest positions that an example has.
      rate: positions of the first axis a second, where they are moments of time: samples of sound; None
        where they last no time. No part of what a field is compared by.
    """

    shape: tuple[int, ...]
    dtype: str
    below: int | None = None
    least: int = 0
    ragged: bool = False
    mask: int | None = None
    frame: tuple[int, ...] = ()
    shortest: int = 1
    rate: int | None = dataclasses.field(default=None, compare=False)

    @property
    def size(self) -> int:
        """Bytes of the array of one example."""
        return int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize

    def batch(self, rows: Any, length: Any = None) -> Any:
        """The `jax.ShapeDtypeStruct` of so many examples; the number may be symbolic.

        Args:
          rows: how many.
          length: of a ragged field, the longest of them by default; it may be symbolic.
        """
        import jax  # not before: the command line's help does without, and must not wait for it

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


def length_field(most: int, least: int = 1) -> Field:
    """What the lengths of a ragged field are whose examples have `least` to `most` positions."""
    return Field((), "int32", below=most + 1, least=least)


Interpolation: TypeAlias = Literal["nearest", "lanczos", "bilinear", "bicubic", "box", "hamming"]
"""Of resizing, as Pillow has it and in the order of its numbers for them."""

Fault: TypeAlias = tuple[str, str] | tuple[str, str, str]
"""`(fields, fault)` or `(fields, fault, mend)` of what does not go together, see `kdjax.parse.faults`."""


class BadInput(ValueError):
    """What the user gave cannot be used: one line that names the field, what is wrong, and what to do.

    The command line prints the line and exits with status 2; nothing is lost.

    A function knows the field as its own caller gave it: `temperature`. Each caller that has it inside of
    something says so once, with `under`: `terms.rank.temperature`, then
    `config.stages.student.terms.rank.temperature`. A path that begins at a root, which is the config or a
    flag, is whole and stays as it is: whoever knows all of it may say so, and nobody can put it there
    twice.

    Attributes:
      path: of the field, such as `terms.rank.margin`, `config.data` or `--workdir`; empty where it is the
        whole of what was given.
      fault: what is wrong with it.
      mend: what to do about it; empty where the fault says it.
    """

    def __init__(self, path: str, fault: str, mend: str = ""):
        super().__init__(path, fault, mend)
        self.path, self.fault, self.mend = path, fault, mend

    @property
    def is_whole(self) -> bool:
        """Whether the path begins at a root."""
        return re.match(r"--|config(?![^.\[,])", self.path) is not None

    def under(self, path: str, called: Mapping[str, str] | None = None) -> "BadInput":
        """Puts `path` before this one, unless this one is whole.

        Args:
          path: of what the field is in; where it ends in a colon, as `--config=FILE:` does, the name of
            the field comes right after it.
          called: what fields are called there, by the path that they have here, where that is another.

        Returns:
          Itself.
        """
        if not self.is_whole:
            inner = (called or {}).get(self.path, self.path)
            between = "" if path[-1:] in ("", ":") or inner[:1] in ("", "[") else "."
            self.path = f"{path}{between}{inner}"
        return self

    def __str__(self) -> str:
        said = f"{self.path}: {self.fault}" if self.path else self.fault
        return f"{said}; {self.mend}" if self.mend else said


class BadFile(BadInput):
    """A file or a folder that cannot be used; its path is one of a file system, and whole."""

    def __init__(self, path: str | os.PathLike[str], fault: str, mend: str = ""):
        super().__init__(os.fspath(path), fault, mend)

    @property
    def is_whole(self) -> bool:
        """It is no field of anything."""
        return True


@contextlib.contextmanager
def under(path: str, called: Mapping[str, str] | None = None) -> Iterator[None]:
    """What is refused within is a field of what has this path, see `BadInput.under`."""
    try:
        yield
    except BadInput as error:
        error.under(path, called)
        raise


class StorageFailed(RuntimeError):
    """The storage failed while something was running: one line with what, where and the mend.

    The command line prints the line and exits with status 1; what was finished before stays so.
    """
