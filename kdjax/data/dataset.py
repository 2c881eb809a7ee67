"""A dataset: small arrays for ids and labels, a function that reads the inputs by row."""

import dataclasses
import functools
from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Int, Int32, Int64, Integer, UInt32

from kdjax import fingerprint
from kdjax.types import BadInput, Field, Fields, length_field, length_of

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
      lengths: of all examples in the ragged fields, by the name of the field: known before anything
        is read.
    """

    name: str
    ids: UInt32[np.ndarray, " n"]
    labels: Int32[np.ndarray, " n"]
    classes: int
    fields: Fields
    read: Read
    marked: Callable[[Int32[np.ndarray, " n"]], str]
    lengths: Mapping[str, Int32[np.ndarray, " n"]] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        if not len(self.ids):
            raise BadInput("data", f"{self.name} has no examples", "name another split")
        if len(self.labels) != len(self.ids):
            raise BadInput(
                "data",
                f"{self.name} has {len(self.labels)} labels for {len(self.ids)} ids",
                "give one each",
            )
        if len(np.unique(self.ids)) != len(self.ids):
            raise BadInput("data", f"ids of {self.name} are not unique", "each names one example")
        whole_labels(self.labels, classes=self.classes, name=self.name)
        for field, own in self.fields.items():
            if own.ragged and not self._says_lengths(field, own):
                raise BadInput(
                    "data",
                    f"{field} of {self.name} is ragged, and needs the lengths of all examples, 1 to "
                    f"{own.shape[0]}, and a field {length_of(field)} of them",
                )

    def _says_lengths(self, field: str, own: Field) -> bool:
        lengths = self.lengths.get(field, np.zeros(0))
        if self.fields.get(length_of(field)) != length_field(own.shape[0]):
            return False
        if len(lengths) != len(self):
            return False
        return int(lengths.min()) >= 1 and int(lengths.max()) <= own.shape[0]

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
            lengths={field: own[rows] for field, own in self.lengths.items()},
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
        raise BadInput("data", f"{name} has {classes} classes", "there is at least one")
    wrong = np.flatnonzero((labels < UNLABELLED) | (labels >= classes))
    if wrong.size:
        raise BadInput(
            "data",
            f"label {labels[wrong[0]]} of {name} is out of range",
            f"{classes} classes are 0 to {classes - 1}, and {UNLABELLED} is for none (example "
            f"{wrong[0]})",
        )
