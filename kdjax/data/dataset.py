"""A dataset: small arrays for ids and labels, a function that reads the inputs by row."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Int, Int32, Int64, Integer, UInt8, UInt32

from kdjax import fingerprint
from kdjax.types import BadInput, Field, Fields

UNLABELLED = -1
"""Label of an example whose label may not be used."""


Read = Callable[[Int[np.ndarray, " b"]], Mapping[str, np.ndarray]]
"""`rows -> arrays` [b, ...] by the name of their field."""


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Random access to examples, with stable ids.

    Attributes:
      name: what it is, for messages and the report.
      ids: the dataset's own example ids as unique uint32; views are keyed by them.
      labels: integer classes, `UNLABELLED` where there is none to use.
      classes: how many there are, as the dataset declares it.
      fields: what a model is given of every example, by name: `{"image": Field((32, 32, 3), "uint8")}`.
      read: rows -> arrays of those names, shapes and dtypes. Safe to call from several threads.
      marked: `labels -> fingerprint` of the content that `read` gives, with these labels.
    """

    name: str
    ids: UInt32[np.ndarray, " n"]
    labels: Int32[np.ndarray, " n"]
    classes: int
    fields: Fields
    read: Read
    marked: Callable[[Int32[np.ndarray, " n"]], str]

    def __post_init__(self):
        if not len(self.ids):
            raise BadInput(f"data: {self.name} has no examples; name another split")
        if len(self.labels) != len(self.ids):
            raise BadInput(
                f"data: {self.name} has {len(self.labels)} labels for {len(self.ids)} ids; give one "
                "each"
            )
        if len(np.unique(self.ids)) != len(self.ids):
            raise BadInput(f"data: ids of {self.name} are not unique; each names one example")
        whole_labels(self.labels, classes=self.classes, name=self.name)

    def __len__(self) -> int:
        return len(self.ids)

    @functools.cached_property
    def fingerprint(self) -> str:
        """Of the content that `read` and `labels` give: a label that is hidden is no part of it."""
        return self.marked(self.labels)

    @property
    def size(self) -> int:
        """Bytes of all inputs."""
        return len(self) * sum(field.size for field in self.fields.values())

    def inputs(self) -> Mapping[str, np.ndarray]:
        """Those of all examples at once."""
        return self.read(np.arange(len(self)))

    def held(self) -> "Dataset":
        """The same, all inputs read once, when the first is asked for, and then kept in memory."""
        whole = functools.cache(self.inputs)
        return dataclasses.replace(
            self, read=lambda rows: {name: array[rows] for name, array in whole().items()}
        )

    def select(self, rows: Int64[np.ndarray, " m"]) -> "Dataset":
        """These rows only, in this order.

        Raises:
          IndexError: a row is not there; a negative one is none.
        """
        rows, n = self._own(rows), len(self)

        def marked(labels: Int32[np.ndarray, " m"]) -> str:
            every = np.full(n, UNLABELLED, np.int32)
            every[rows] = labels
            return fingerprint.of_json([self.marked(every), "select", rows.tolist()])

        return dataclasses.replace(
            self,
            ids=self.ids[rows],
            labels=self.labels[rows],
            read=lambda chosen: self.read(rows[chosen]),
            marked=marked,
        )

    def hide_labels(self, shown: Int64[np.ndarray, " m"]) -> "Dataset":
        """All rows, the labels of those in `shown` only.

        Raises:
          IndexError: a row is not there; a negative one is none.
        """
        shown = self._own(shown)
        labels = np.full_like(self.labels, UNLABELLED)
        labels[shown] = self.labels[shown]
        return dataclasses.replace(self, labels=labels)

    def _own(self, rows: Int64[np.ndarray, " m"]) -> Int64[np.ndarray, " m"]:
        # NumPy counts negative rows from the end: here they are a mistake, such as a label.
        if rows.size and not 0 <= rows.min() <= rows.max() < len(self):
            raise IndexError(
                f"rows {rows.min()} to {rows.max()} of {self.name}, which has {len(self)} examples"
            )
        return rows


def whole_labels(labels: Integer[np.ndarray, " n"], *, classes: int, name: str) -> None:
    """Refuses labels that are no class, in whichever integers they come.

    Raises:
      BadInput: a label is out of range, or there are no classes.
    """
    if classes < 1:
        raise BadInput(f"data: {name} has {classes} classes; there is at least one")
    wrong = np.flatnonzero((labels < UNLABELLED) | (labels >= classes))
    if wrong.size:
        raise BadInput(
            f"data: label {labels[wrong[0]]} of {name} is out of range; {classes} classes are 0 to "
            f"{classes - 1}, and {UNLABELLED} is for none (example {wrong[0]})"
        )


def from_arrays(
    images: Any,
    labels: Any,
    *,
    classes: Any,
    ids: Any = None,
    name: str = "arrays",
) -> Dataset:
    """A dataset of arrays in memory; ids are the rows where none are given.

    All are copied, so that a later change of the caller's does not reach the dataset behind its
    fingerprint; images in a `np.memmap` that is opened for reading only are not, and stay on the disk.
    Nothing is converted that could be meant in two ways: images of another dtype are refused with what
    makes uint8 of them.

    Args:
      images: uint8, [n, height, width, channel]; whatever `np.asarray` takes.
      labels: integers, [n]: 0 to `classes - 1`, and -1 where there is none to use.
      classes: how many there are, an integer, also if some never occur.
      ids: integers below 2**32, [n], each once; `kdjax.data.unique_ids` makes them of names.
      name: for messages and the report.

    Raises:
      BadInput: no examples, images that are not uint8 or have no channels, labels or ids that are not
        one each, labels out of range, or ids that are not unique.
    """
    if isinstance(classes, bool) or not isinstance(classes, int | np.integer):
        raise BadInput(f"data: {name} needs the number of its classes; {classes!r} is none")
    own_images = _images(images, name)
    n, own_labels = len(own_images), _array(labels, f"labels of {name}")
    _one_each(own_labels, n, name)
    whole_labels(own_labels, classes=int(classes), name=name)
    own_labels = own_labels.astype(np.int32)
    own_ids = np.arange(n, dtype=np.uint32) if ids is None else _ids(ids, n, name)
    for array in (own_labels, own_ids):
        array.setflags(write=False)
    return Dataset(
        name=name,
        ids=own_ids,
        labels=own_labels,
        classes=int(classes),
        fields={"image": Field(own_images.shape[1:], "uint8")},
        read=lambda rows: {"image": own_images[rows]},
        marked=lambda labels: fingerprint.of_arrays(
            {"images": own_images, "labels": labels, "ids": own_ids}
        ),
    )


def _array(given: Any, what: str) -> np.ndarray:
    try:
        return np.asarray(given)
    except (ValueError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise BadInput(f"data: {what} are no array: {reason}") from None


def _images(given: Any, name: str) -> UInt8[np.ndarray, "n height width channel"]:
    """A copy of the images, which nobody can write to."""
    images = _array(given, f"images of {name}")
    if images.dtype != np.uint8:
        raise BadInput(
            f"data: images of {name} are {images.dtype}, not uint8 from 0 to 255; "
            f"{_as_uint8(images)}"
        )
    if images.ndim == 3:
        raise BadInput(
            f"data: images of {name} have shape {images.shape}, without channels; give "
            "images[..., None]"
        )
    if images.ndim != 4:
        raise BadInput(
            f"data: images of {name} have shape {images.shape}, not (examples, height, width, channel)"
        )
    if not len(images):
        raise BadInput(f"data: {name} has no examples; name another split")
    if not images.size:
        raise BadInput(f"data: images of {name} have shape {images.shape}: there is nothing to see")
    if isinstance(images, np.memmap) and not images.flags.writeable:
        return images
    images = np.array(images, order="C", subok=False)
    images.setflags(write=False)
    return images


def _as_uint8(images: np.ndarray) -> str:
    """What makes uint8 images of those of another type, by the values that they have."""
    kind = images.dtype.kind
    if kind == "b":
        return "give images.astype(np.uint8) * 255"
    if kind not in "iuf":
        return "give numbers"
    if not images.size:
        return "give images.astype(np.uint8)"
    if kind == "f" and not np.isfinite(images).all():
        return "some are not finite; look at where they are from"
    low, high = images.min(), images.max()
    if low < 0:
        return f"they go from {low} to {high}; shift and scale them"
    if kind == "f":
        if high <= 1:
            return "give (images * 255).round().astype(np.uint8)"
        if high <= 255:
            return "give images.round().astype(np.uint8)"
        return f"they go from {low} to {high}; scale them"
    if high <= 255:
        return "give images.astype(np.uint8)"
    if images.dtype == np.uint16:
        return "give (images >> 8).astype(np.uint8), if all 16 bits are used"
    return f"they go from {low} to {high}; scale them"


def _one_each(labels: np.ndarray, n: int, name: str) -> None:
    if labels.ndim == 2 and labels.shape[1] == 1:
        raise BadInput(f"data: labels of {name} have shape {labels.shape}; give labels[:, 0]")
    if labels.ndim == 2:
        raise BadInput(
            f"data: labels of {name} have shape {labels.shape}; if they are one-hot rows, give "
            "labels.argmax(-1)"
        )
    if labels.ndim != 1:
        raise BadInput(f"data: labels of {name} have shape {labels.shape}; give one an image")
    if len(labels) != n:
        raise BadInput(f"data: {name} has {len(labels)} labels for {n} images; give one each")
    if labels.dtype.kind not in "iu":
        raise BadInput(
            f"data: labels of {name} are {labels.dtype}, not integers; give the number of the class, "
            f"from 0, and {UNLABELLED} for none"
        )


def _ids(given: Any, n: int, name: str) -> UInt32[np.ndarray, " n"]:
    ids = _array(given, f"ids of {name}")
    if ids.shape != (n,):
        raise BadInput(f"data: ids of {name} have shape {ids.shape} for {n} images; give one each")
    if ids.dtype.kind not in "iu":
        raise BadInput(
            f"data: ids of {name} are {ids.dtype}, not integers; kdjax.data.unique_ids makes integers "
            "of names"
        )
    if ids.min() < 0 or ids.max() >= 2**32:
        wrong = ids.min() if ids.min() < 0 else ids.max()
        raise BadInput(
            f"data: id {wrong} of {name} is not in [0, 2**32); kdjax.data.unique_ids makes others of "
            "such"
        )
    return ids.astype(np.uint32)
