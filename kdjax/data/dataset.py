"""A dataset: small arrays for ids and labels, a function that reads the inputs by row."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int, Int32, Int64, Shaped, UInt32

from kdjax import fingerprint
from kdjax.data.targets import Target
from kdjax.types import BadInput, Field, Fields, length_field, length_of

_AT_ONCE = 4096
"""Examples that are looked through together."""

Read = Callable[[Int[np.ndarray, " b"]], Mapping[str, np.ndarray]]
"""`rows -> arrays` [b, ...] by the name of their field."""


class Narrowed(NamedTuple):
    """The same examples, said by fewer integers.

    Attributes:
      dataset: with these ids and labels, in this order.
      numbers: what each integer was before, by the name of the field, in rising order.
    """

    dataset: "Dataset"
    numbers: Mapping[str, Int64[np.ndarray, " kept"]]


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Random access to examples, with stable ids.

    Attributes:
      name: what it is, for messages and the report.
      ids: the dataset's own example ids as unique uint32; views are keyed by them.
      labels: one an example, as `target` has them, which also says how one is none.
      target: what they are of.
      fields: what a model is given of every example, by name: `{"image": Field((32, 32, 3), "uint8")}`.
      read: rows -> arrays of those names, shapes and dtypes. Safe to call from several threads.
      marked: `labels -> fingerprint` of the content that `read` gives, with these labels.
      lengths: of all examples in the ragged fields, by the name of the field: known before anything
        is read.
      originals: height and width of each picture as its file has it; None where they are not pictures in
        files.
      notes: what whoever reads it should be told, a line each: what was left out, what is doubtful.
      beside: files that belong to what a model is given, and so beside every file of a model, by name:
        the tokenizer of texts.
      narrow: `{field: integers that occur} -> Narrowed`, where the integers of a field could be fewer, as
        tokens could: each example is said by those that occur and by what the others fall back on. None
        where that cannot be, and of a part of the examples.
    """

    name: str
    ids: UInt32[np.ndarray, " n"]
    labels: Shaped[np.ndarray, "n ..."]
    target: Target
    fields: Fields
    read: Read
    marked: Callable[[Shaped[np.ndarray, "n ..."]], str]
    lengths: Mapping[str, Int32[np.ndarray, " n"]] = dataclasses.field(default_factory=dict)
    originals: Int32[np.ndarray, "n 2"] | None = None
    notes: tuple[str, ...] = ()
    beside: Mapping[str, bytes] = dataclasses.field(default_factory=dict)
    narrow: Callable[[Mapping[str, np.ndarray]], Narrowed] | None = None

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
        found, shape = self.labels.dtype, self.labels.shape[1:]
        if (found, shape) != (self.target.dtype, self.target.shape):
            raise BadInput(
                "data",
                f"a label of {self.name} is {found}{list(shape)}, and of {self.target} it is "
                f"{self.target.dtype}{list(self.target.shape)}",
            )
        self.target.check(self.labels, name=self.name)
        for field, own in self.fields.items():
            if own.ragged and not self._says_lengths(field, own):
                raise BadInput(
                    "data",
                    f"{field} of {self.name} is ragged, and needs the lengths of all examples, 1 to "
                    f"{own.shape[0]}, and a field {length_of(field)} of them",
                )

        self._check_ends()

    def _check_ends(self) -> None:
        """Refuses a label at a position that an example does not have."""
        ends = self.target.ends(self.labels)
        if ends is None:
            return
        for field, lengths in self.lengths.items():
            wrong = np.flatnonzero(ends > lengths)
            if self.fields[field].shape[:1] == self.target.shape and wrong.size:
                row = wrong[0]
                raise BadInput(
                    "data",
                    f"the label of example {row} of {self.name} has {ends[row]} positions, and {field} "
                    f"has {lengths[row]}",
                    "cut it",
                )

    def _says_lengths(self, field: str, own: Field) -> bool:
        lengths = self.lengths.get(field, np.zeros(0))
        if self.fields.get(length_of(field)) != length_field(own.shape[0], own.shortest):
            return False
        if len(lengths) != len(self):
            return False
        return int(lengths.min()) >= own.shortest and int(lengths.max()) <= own.shape[0]

    def __len__(self) -> int:
        return len(self.ids)

    @functools.cached_property
    def fingerprint(self) -> str:
        """Of the content that `read` and `labels` give: a label that is hidden is no part of it."""
        return self.marked(self.labels)

    @property
    def shown(self) -> Bool[np.ndarray, " n"]:
        """Which examples have a label that may be used."""
        return np.asarray(self.target.shown(self.labels))

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

    def occurring(self) -> dict[str, np.ndarray]:
        """The integers that occur in the fields whose integers are below a number, in rising order."""
        fields = [n for n, f in self.fields.items() if f.below is not None and f.ragged]
        found: dict[str, set[int]] = {name: set() for name in fields}
        for begin in range(0, len(self), _AT_ONCE):
            rows = np.arange(begin, min(begin + _AT_ONCE, len(self)))
            arrays = self.read(rows)
            for name in fields:
                inside = np.arange(arrays[name].shape[1])[None] < self.lengths[name][rows][:, None]
                found[name] |= {*np.unique(arrays[name][inside]).tolist()}
        return {name: np.asarray(sorted(own), np.int64) for name, own in found.items()}

    def narrowed(self, used: Mapping[str, np.ndarray]) -> Narrowed:
        """The same examples and labels by fewer integers, see `narrow`.

        Raises:
          BadInput: there is nothing that could be fewer.
        """
        if self.narrow is None:
            raise BadInput("", f"{self.name} has no integers that could be fewer")
        found = self.narrow(used)
        if not np.array_equal(found.dataset.ids, self.ids):
            raise AssertionError(f"{self.name}: other examples with fewer integers")
        own = dataclasses.replace(found.dataset, labels=self.labels, target=self.target)
        return found._replace(dataset=own)

    def select(self, rows: Int64[np.ndarray, " m"]) -> "Dataset":
        """These rows only, in this order.

        Raises:
          IndexError: a row is not there; a negative one is none.
        """
        rows, n = self._own(rows), len(self)

        def marked(labels: Shaped[np.ndarray, "m ..."]) -> str:
            every = self.target.hidden(n)
            every[rows] = labels
            return fingerprint.of_json([self.marked(every), "select", rows.tolist()])

        return dataclasses.replace(
            self,
            ids=self.ids[rows],
            labels=self.labels[rows],
            read=lambda chosen: self.read(rows[chosen]),
            marked=marked,
            lengths={field: own[rows] for field, own in self.lengths.items()},
            originals=None if self.originals is None else self.originals[rows],
            narrow=None,
        )

    def hide_labels(self, shown: Int64[np.ndarray, " m"]) -> "Dataset":
        """All rows, the labels of those in `shown` only.

        Raises:
          IndexError: a row is not there; a negative one is none.
        """
        shown = self._own(shown)
        labels = self.target.hidden(len(self))
        labels[shown] = self.labels[shown]
        return dataclasses.replace(self, labels=labels)

    def _own(self, rows: Int64[np.ndarray, " m"]) -> Int64[np.ndarray, " m"]:
        # NumPy counts negative rows from the end: here they are a mistake, such as a label.
        if rows.size and not 0 <= rows.min() <= rows.max() < len(self):
            raise IndexError(
                f"rows {rows.min()} to {rows.max()} of {self.name}, which has {len(self)} examples"
            )
        return rows
