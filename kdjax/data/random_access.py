"""Datasets of whatever can be asked for one example after the other."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from kdjax.data.arrays import field_of, labelled, numbers
from kdjax.data.dataset import Dataset
from kdjax.data.prepared import unique_ids
from kdjax.data.targets import Target, target_of
from kdjax.parse import nearest
from kdjax.types import BadInput


def from_source(
    source: Any,
    *,
    inputs: Sequence[str],
    classes: Any = None,
    target: Target | None = None,
    label: str = "label",
    id: str | None = None,
    below: Mapping[str, int] | None = None,
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
      name: for messages and the report.

    Raises:
      BadInput: an example has no such field, or arrays of one field differ in shape or dtype; see also
        `from_fields`.
    """
    asked, n = target_of(classes, target, name=name), len(source)
    if not n:
        raise BadInput(f"data: {name} has no examples; name another split")
    labels, own, digest = [], [], hashlib.sha256()
    shapes: dict[str, tuple[tuple[int, ...], np.dtype]] = {}
    ends: dict[str, np.ndarray] = {}
    for row in range(n):
        example = source[row]
        for field in (*inputs, label, *([] if id is None else [id])):
            if field not in example:
                raise BadInput(
                    f"data: example {row} of {name} has no {field!r}{nearest(field, example)}"
                )
        for field in inputs:
            array = np.asarray(example[field])
            if shapes.setdefault(field, (array.shape, array.dtype)) != (array.shape, array.dtype):
                raise BadInput(
                    f"data: {field} of example {row} of {name} is {array.dtype}{list(array.shape)}, of "
                    f"the first one {shapes[field][1]}{list(shapes[field][0])}; make all alike"
                )
            digest.update(np.ascontiguousarray(array).tobytes())
            narrow = numbers(array[None], f"{field} of example {row} of {name}")
            seen = np.append(ends.get(field, narrow[:0]), narrow)
            ends[field] = np.array([seen.min(), seen.max()])
        labels.append(example[label])
        own.append(row if id is None else example[id])
    fields = {
        field: field_of(ends[field], shape, (below or {}).get(field), f"{field} of {name}")
        for field, (shape, _) in shapes.items()
    }

    def read(rows: Int[np.ndarray, " b"]) -> dict[str, np.ndarray]:
        found = {field: np.empty((len(rows), *f.shape), f.dtype) for field, f in fields.items()}
        for i, row in enumerate(rows):
            example = source[int(row)]
            for field, array in found.items():
                array[i] = example[field]
        return found

    ids = np.arange(n) if id is None else unique_ids(own)
    content = {"content": np.frombuffer(digest.digest(), np.uint8)}
    return labelled(fields, read, content, labels, n=n, target=asked, ids=ids, name=name)
