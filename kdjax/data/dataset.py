"""A dataset: small arrays for ids and labels, a function that reads images by row."""

import dataclasses
import functools
from collections.abc import Callable

import numpy as np
from jaxtyping import Int, Int32, Int64, UInt8, UInt32

from kdjax import fingerprint
from kdjax.types import BadInput

UNLABELLED = -1
"""Label of an example whose label may not be used."""


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Random access to images, with stable ids.

    Attributes:
      name: what it is, for messages and the report.
      ids: the dataset's own example ids as unique uint32; views are keyed by them.
      labels: integer classes, `UNLABELLED` where there is none to use.
      classes: how many there are.
      image_shape: height, width, channel of every image.
      read: rows -> images, uint8. Safe to call from several threads.
      fingerprint: of the content that `read` and `labels` give.
    """

    name: str
    ids: UInt32[np.ndarray, " n"]
    labels: Int32[np.ndarray, " n"]
    classes: int
    image_shape: tuple[int, int, int]
    read: Callable[[Int[np.ndarray, " b"]], UInt8[np.ndarray, "b height width channel"]]
    fingerprint: str

    def __post_init__(self):
        if not len(self.ids):
            raise BadInput(f"data: {self.name} has no examples; name another split")
        if len(np.unique(self.ids)) != len(self.ids):
            raise BadInput(f"data: ids of {self.name} are not unique; each names one example")
        wrong = self.labels[(self.labels < UNLABELLED) | (self.labels >= self.classes)]
        if wrong.size:
            raise BadInput(
                f"data: label {wrong[0]} of {self.name} is out of range; "
                f"{self.classes} classes are 0 to {self.classes - 1}"
            )

    def __len__(self) -> int:
        return len(self.ids)

    def images(self) -> UInt8[np.ndarray, "n height width channel"]:
        """All images at once."""
        return self.read(np.arange(len(self)))

    def held(self) -> "Dataset":
        """The same, all images read once, when the first is asked for, and then kept in memory."""
        images = functools.cache(self.images)
        return dataclasses.replace(self, read=lambda rows: images()[rows])

    def select(self, rows: Int64[np.ndarray, " m"]) -> "Dataset":
        """These rows only, in this order."""
        return dataclasses.replace(
            self,
            ids=self.ids[rows],
            labels=self.labels[rows],
            read=lambda chosen: self.read(rows[chosen]),
            fingerprint=fingerprint.of_json([self.fingerprint, "select", rows.tolist()]),
        )

    def hide_labels(self, shown: Int64[np.ndarray, " m"]) -> "Dataset":
        """All rows, the labels of those in `shown` only."""
        labels = np.full_like(self.labels, UNLABELLED)
        labels[shown] = self.labels[shown]
        return dataclasses.replace(
            self,
            labels=labels,
            fingerprint=fingerprint.of_json([self.fingerprint, "shown", shown.tolist()]),
        )


def from_arrays(
    images: UInt8[np.ndarray, "n height width channel"],
    labels: Int[np.ndarray, " n"],
    *,
    classes: int,
    ids: UInt32[np.ndarray, " n"] | None = None,
    name: str = "arrays",
) -> Dataset:
    """A dataset of arrays in memory; ids are the rows where none are given.

    Raises:
      BadInput: no examples, labels out of range, or ids that are not unique.
    """
    ids = np.arange(len(images), dtype=np.uint32) if ids is None else ids
    labels = labels.astype(np.int32)
    return Dataset(
        name=name,
        ids=ids,
        labels=labels,
        classes=classes,
        image_shape=images.shape[1:],
        read=lambda rows: images[rows],
        fingerprint=fingerprint.of_arrays({"images": images, "labels": labels, "ids": ids}),
    )
