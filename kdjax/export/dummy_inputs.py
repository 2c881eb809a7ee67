"""Inputs for a file that is to be timed: its operators take as long whatever they are given."""

import os
from collections.abc import Mapping, Sequence

import numpy as np

from kdjax.types import BadFile, BadInput


def check_positive(**numbers: int) -> None:
    """Refuses a number below 1, by its name."""
    for name, value in numbers.items():
        if value < 1:
            raise BadInput(name, f"must be at least 1, not {value}")


def made_up(
    path: str | os.PathLike[str],
    name: str,
    shape: Sequence[int | str | None],
    dtype: np.dtype,
    random: np.random.Generator,
) -> np.ndarray:
    """Something of a shape and type: floats standard normal, uint8 random bytes, as of an image.

    Other integers are 0, a valid token or index, and bools True.

    Raises:
      BadInput: a dimension is open, or the type is no number; it names the file and the input.
    """
    for axis, size in enumerate(shape):
        if is_open(size):
            called = f" ({size!r})" if isinstance(size, str) else ""
            raise BadFile(
                path,
                f"input {name!r} leaves dimension {axis}{called} open: export it with a fixed size",
            )
    sizes = [int(size or 0) for size in shape]
    if np.issubdtype(dtype, np.floating):
        return random.standard_normal(sizes).astype(dtype)
    if dtype == np.uint8:
        return random.integers(256, size=sizes, dtype=np.uint8)
    if np.issubdtype(dtype, np.integer):
        return np.zeros(sizes, dtype)
    if dtype == np.bool_:
        return np.ones(sizes, bool)
    raise BadFile(path, f"input {name!r} is {dtype}: only numbers can be made up")


def check_batch(
    path: str | os.PathLike[str], sizes: Mapping[str, int | str | None], batch: int
) -> None:
    """Refuses a batch that no input takes: its latency would be reported under a wrong size.

    Args:
      path: of the file.
      sizes: the first dimension of each input that has one, by the input's name.
      batch: wanted.
    """
    if sizes and not any(is_open(size) or size == batch for size in sizes.values()):
        name, size = next(iter(sizes.items()))
        raise BadFile(path, f"input {name!r} has its batch fixed: use --batch={size}")


def is_open(size: int | str | None) -> bool:
    """Whether a dimension is left to the caller: runtimes give its name, None or -1."""
    return not isinstance(size, int) or size < 0


def line(error: Exception) -> str:
    """The message of a runtime on one line."""
    return " ".join(str(error).split())
