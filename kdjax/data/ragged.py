"""Arrays that differ in length, such as sentences and recordings: kept end to end, read padded."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int, Int32, Int64

from kdjax.types import BadInput, Field, length_field, length_of


class Ragged(NamedTuple):
    """One array of each example, end to end.

    Attributes:
      values: of all examples, [all positions, ...].
      starts: where each example begins, and where the last one ends, [n + 1].
      most: length of the longest that there may be, to which examples are padded with zeros.
    """

    values: np.ndarray
    starts: Int64[np.ndarray, " n_and_1"]
    most: int

    @classmethod
    def of(cls, arrays: Iterable[Any], *, most: Any, what: str) -> "Ragged":
        """Of arrays [length, ...], one an example.

        Raises:
          BadInput: one has no position or more than `most`, or they are not alike otherwise.
        """
        own = [np.asarray(array) for array in arrays]
        if not own:
            raise BadInput("data", f"{what}: there are no examples", "name another split")
        for row, array in enumerate(own):
            whole_length(array, most=most, what=f"{what}, example {row}")
            if array.shape[1:] != own[0].shape[1:] or array.dtype != own[0].dtype:
                raise BadInput(
                    "data",
                    f"{what} of example {row} are {array.dtype}{list(array.shape)}, of the first one "
                    f"{own[0].dtype}{list(own[0].shape)}",
                    "make all alike but for their length",
                )
        starts = np.concatenate([[0], np.cumsum([len(array) for array in own])]).astype(np.int64)
        return cls(np.concatenate(own), starts, int(most))

    @property
    def lengths(self) -> Int32[np.ndarray, " n"]:
        """Of all examples."""
        return np.diff(self.starts).astype(np.int32)

    def read(self, rows: Int[np.ndarray, " b"]) -> np.ndarray:
        """These examples, [b, most, ...], zeros behind the end of each."""
        found = np.zeros((len(rows), self.most, *self.values.shape[1:]), self.values.dtype)
        for place, row in zip(found, rows, strict=True):
            own = self.values[self.starts[row] : self.starts[row + 1]]
            place[: len(own)] = own
        return found


def whole_length(array: np.ndarray, *, most: Any, what: str) -> int:
    """The length of one example's array.

    Raises:
      BadInput: it has no axis, no position, or more than `most`, which is no number itself.
    """
    if isinstance(most, bool) or not isinstance(most, int | np.integer) or most < 1:
        raise BadInput(
            "data",
            f"{what}: the longest that there may be is {most!r}",
            "give an integer of 1 or more",
        )
    if not array.ndim:
        raise BadInput(
            "data", f"{what} is one number", "a ragged array has positions, [length, ...]"
        )
    if not 1 <= len(array) <= most:
        mend = "leave it out" if not len(array) else "cut it, or allow for longer ones"
        raise BadInput("data", f"{what} has {len(array)} positions, not 1 to {most}", mend)
    return len(array)


def with_lengths(
    fields: Mapping[str, Field], lengths: Mapping[str, Int32[np.ndarray, " n"]], *, name: str
) -> tuple[dict[str, Field], dict[str, Int32[np.ndarray, " n"]]]:
    """The fields with one behind each ragged one that says how long it is, and the arrays of these.

    Raises:
      BadInput: there is a field of such a name already.
    """
    every: dict[str, Field] = {}
    for field, own in fields.items():
        every[field] = own
        if field in lengths:
            every[length_of(field)] = length_field(own.shape[0], own.shortest)
            if length_of(field) in fields:
                raise BadInput(
                    "data",
                    f"{length_of(field)} of {name} is the name of the lengths of {field}",
                    "call what has it otherwise",
                )
    return every, {length_of(field): own for field, own in lengths.items()}


def check_ragged(ragged: Mapping[str, Any], inputs: Sequence[str], *, name: str) -> None:
    """Raises `BadInput` where a field that is said to be ragged is no input."""
    for field in ragged:
        if field not in inputs:
            raise BadInput(
                "data",
                f"{field} of {name} is said to be ragged, and the inputs are {', '.join(inputs)}",
            )
