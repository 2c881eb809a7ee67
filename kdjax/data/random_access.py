"""Datasets of whatever can be asked for one example after the other."""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from kdjax.data.arrays import field_of, labelled, numbers
from kdjax.data.dataset import Dataset
from kdjax.data.ids import unique_ids
from kdjax.data.ragged import check_ragged, whole_length, with_lengths
from kdjax.data.targets import Target, target_of
from kdjax.spelling import suggestion
from kdjax.types import BadInput, Field


def from_source(
    source: Any,
    *,
    inputs: Sequence[str],
    classes: Any = None,
    target: Target | None = None,
    label: str = "label",
    id: str | None = None,
    below: Mapping[str, int] | None = None,
    ragged: Mapping[str, Any] | None = None,
    name: str = "source",
) -> Dataset:
    """A dataset of whatever has `len(source)` and `source[i]`, such as those of grain, TFDS and lists.

    Every example is read once, here, for its label and what the fingerprint is of; its inputs are read
    again when they are asked for.

    Args:
      source: gives examples as dicts of numbers and arrays, the same one for the same index each time,
        from several threads.
      inputs: names of what a model is given, in the order in which a file of it takes them.
      classes: how many there are, an integer.
      target: what the labels are of, where that is no class of the example; see `from_arrays`.
      label: name of the class, an integer; -1 where there is none to use; or of what `target` takes.
      id: name of the example's own id, an integer or a text; the index where none is given.
      below: as of `from_fields`.
      ragged: likewise: inputs whose examples differ in length, with the length of the longest.
      name: for messages and the report.

    Raises:
      BadInput: an example has no such field, or arrays of one field differ in shape or dtype; see also
        `from_fields`.
    """
    asked, n = target_of(classes, target, name=name), len(source)
    if not n:
        raise BadInput("data", f"{name} has no examples", "name another split")
    check_ragged(ragged or {}, inputs, name=name)
    labels, own, digest = [], [], hashlib.sha256()
    looked = {
        field: _Looked(field, name, (below or {}).get(field), (ragged or {}).get(field))
        for field in inputs
    }
    for row in range(n):
        example = source[row]
        for field in (*inputs, label, *([] if id is None else [id])):
            if field not in example:
                raise BadInput(
                    "data", f"example {row} of {name} has no {field!r}", suggestion(field, example)
                )
        for field in inputs:
            digest.update(looked[field].at(row, np.asarray(example[field])))
        labels.append(example[label])
        own.append(row if id is None else example[id])
    lengths = {field: np.asarray(looked[field].lengths, np.int32) for field in ragged or {}}
    fields, beside = with_lengths(
        {field: one.field() for field, one in looked.items()}, lengths, name=name
    )

    def read(rows: Int[np.ndarray, " b"]) -> dict[str, np.ndarray]:
        found = {field: np.zeros((len(rows), *f.shape), f.dtype) for field, f in fields.items()}
        for i, row in enumerate(rows):
            example = source[int(row)]
            for field in inputs:
                array, place = np.asarray(example[field]), found[field][i, ...]
                if field in lengths:
                    place = place[: lengths[field][row]]
                if (array.shape, array.dtype) != (place.shape, looked[field].dtype):
                    raise BadInput(
                        "data",
                        f"{field} of example {row} of {name} is {array.dtype}{list(array.shape)}, "
                        f"and was {looked[field].dtype}{list(place.shape)} when it was first read",
                        "give the same example for the same index each time",
                    )
                place[...] = array
        return found | {field: array[rows] for field, array in beside.items()}

    ids = np.arange(n) if id is None else unique_ids(own)
    content = {"content": np.frombuffer(digest.digest(), np.uint8), **beside}
    return labelled(
        fields, read, content, labels, n=n, target=asked, ids=ids, name=name, lengths=lengths
    )


class _Looked:
    """What the arrays of one field have shown so far: that they are alike, and what is in them."""

    def __init__(self, name: str, of: str, below: int | None, most: Any):
        self._name, self._of, self._below, self._most = name, of, below, most
        self._first: tuple[tuple[int, ...], np.dtype] | None = None
        self._ends: np.ndarray | None = None
        self.lengths: list[int] = []

    def at(self, row: int, array: np.ndarray) -> bytes:
        """Looks at the array of one example, and gives its bytes."""
        what = f"{self._name} of example {row} of {self._of}"
        shape = array.shape
        if self._most is not None:
            self.lengths.append(whole_length(array, most=self._most, what=what))
            shape = shape[1:]
        if self._first is None:
            self._first = shape, array.dtype
        if self._first != (shape, array.dtype):
            raise BadInput(
                "data",
                f"{what} is {array.dtype}{list(shape)}, of the first one "
                f"{self._first[1]}{list(self._first[0])}",
                "make all alike",
            )
        narrow = numbers(array[None], what)
        seen = narrow.ravel() if self._ends is None else np.append(self._ends, narrow)
        self._ends = np.array([seen.min(), seen.max()])
        return np.ascontiguousarray(array).tobytes()

    @property
    def dtype(self) -> np.dtype:
        """That the source gives, which may be one of 64 bits."""
        assert self._first is not None
        return self._first[1]

    def field(self) -> Field:
        """Of all of them."""
        assert self._first is not None
        assert self._ends is not None
        shape = self._first[0]
        if self._most is not None:
            shape = (int(self._most), *shape)
        found = field_of(self._ends, shape, self._below, f"{self._name} of {self._of}")
        return dataclasses.replace(found, ragged=self._most is not None)
