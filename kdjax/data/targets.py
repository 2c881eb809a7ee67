"""What the labels of a dataset are of: one class, values, a vector, a class at each position.

A target says in which dtype and shape an example's label is, which labels are none, and how what a user
gives becomes such labels. Whatever hides, selects, feeds and fingerprints labels asks it, and has no
case for any of them. `kdjax.tasks` has what a model is asked of each.
"""

import abc
import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Array, Bool, Int64, Shaped

from kdjax.types import BadInput

UNLABELLED = -1
"""A class that may not be used, or is not known: that of an example, or of one of its positions."""

Labels = Shaped[Array | np.ndarray, "n ..."]
"""Of several examples, on the host or on the device."""


class Target(abc.ABC):
    """What is asked of an example, as its dataset says it."""

    @property
    @abc.abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Of the label of one example."""

    @property
    @abc.abstractmethod
    def dtype(self) -> np.dtype:
        """Of the labels."""

    @abc.abstractmethod
    def hidden(self, examples: int) -> Shaped[np.ndarray, "n ..."]:
        """The labels of examples that have none."""

    @abc.abstractmethod
    def shown(self, labels: Labels) -> Bool[Array | np.ndarray, " n"]:
        """Which examples have a label."""

    @abc.abstractmethod
    def read(self, given: np.ndarray, *, n: int, name: str) -> Shaped[np.ndarray, "n ..."]:
        """A copy of the labels that a user gives, as a dataset has them.

        Args:
          given: one for each example.
          n: how many examples there are.
          name: of the dataset, for messages.

        Raises:
          BadInput: they are no such labels.
        """

    @abc.abstractmethod
    def check(self, labels: Shaped[np.ndarray, "n ..."], *, name: str) -> None:
        """Refuses labels in the right shape whose values are none.

        Raises:
          BadInput: one of them is none; the line names its example.
        """

    def strata(
        self, labels: Shaped[np.ndarray, "n ..."]
    ) -> Iterator[tuple[str, Int64[np.ndarray, " m"]]]:
        """Rows that have a label, in parts of which each gives its own share of the labels to use.

        All of them together, where there is nothing to tell them apart by.
        """
        yield "all", np.flatnonzero(self.shown(labels))

    def ends(self, labels: Shaped[np.ndarray, "n ..."]) -> Int64[np.ndarray, " n"] | None:
        """How many positions each label has, up to the last one that is known; None without positions."""
        return None

    def count_per_class(self, field: str, name: str) -> None:
        """Refuses to count labels by class where an example has not one class.

        Raises:
          BadInput: that is so; the line names `field`.
        """
        raise BadInput(
            field,
            f"the labels of {name} are {self}, and it counts examples of each class",
            "leave it out, or give labels_share",
        )

    def facts(self) -> dict[str, Any]:
        """What a report says of it."""
        return {"target": str(self)}


class OneNumber(Target):
    """An integer of each example: int32 [n], `UNLABELLED` for none."""

    @property
    def shape(self) -> tuple[int, ...]:
        """A number."""
        return ()

    @property
    def dtype(self) -> np.dtype:
        """int32."""
        return np.dtype(np.int32)

    def hidden(self, examples: int) -> Shaped[np.ndarray, "n ..."]:
        """See `Target`."""
        return np.full(examples, UNLABELLED, self.dtype)

    def shown(self, labels: Labels) -> Bool[Array | np.ndarray, " n"]:
        """See `Target`."""
        return labels >= 0


@dataclasses.dataclass(frozen=True)
class Classes(OneNumber):
    """One of several classes: int32 [n], `UNLABELLED` for none.

    Attributes:
      classes: how many there are, as the dataset declares it, also if some never occur.
      names: what they are called, in their order, for the report and for exported files; empty where
        the dataset does not say it.
    """

    classes: int
    names: tuple[str, ...] = ()

    def read(self, given: np.ndarray, *, n: int, name: str) -> Shaped[np.ndarray, "n ..."]:
        """Integers [n]; see `Target`."""
        if given.ndim == 2 and given.shape[1] == 1:
            raise BadInput(
                "data", f"labels of {name} have shape {given.shape}", "give labels[:, 0]"
            )
        if given.ndim == 2:
            raise BadInput(
                "data",
                f"labels of {name} have shape {given.shape}",
                "if they are one-hot rows, give labels.argmax(-1)",
            )
        if given.ndim != 1:
            raise BadInput(
                "data", f"labels of {name} have shape {given.shape}", "give one an image"
            )
        if len(given) != n:
            raise BadInput(
                "data", f"{name} has {len(given)} labels for {n} images", "give one each"
            )
        if given.dtype.kind not in "iu":
            raise BadInput(
                "data",
                f"labels of {name} are {given.dtype}, not integers",
                f"give the number of the class, from 0, and {UNLABELLED} for none",
            )
        self.check(given, name=name)
        return given.astype(self.dtype)

    def check(self, labels: Shaped[np.ndarray, "n ..."], *, name: str) -> None:
        """Refuses labels that are no class, in whichever integers they come; see `Target`."""
        if self.classes < 1:
            raise BadInput("data", f"{name} has {self.classes} classes", "there is at least one")
        if self.names and len(self.names) != self.classes:
            raise BadInput(
                "data",
                f"{name} has {self.classes} classes and {len(self.names)} names of classes",
                "give one each",
            )
        wrong = np.argwhere((labels < UNLABELLED) | (labels >= self.classes))
        if len(wrong):
            raise BadInput(
                "data",
                f"label {labels[tuple(wrong[0])]} of {name} is out of range",
                f"{self.classes} classes are 0 to {self.classes - 1}, and {UNLABELLED} is for none "
                f"(example {wrong[0][0]})",
            )

    def strata(
        self, labels: Shaped[np.ndarray, "n ..."]
    ) -> Iterator[tuple[str, Int64[np.ndarray, " m"]]]:
        """One for each class."""
        for label in range(self.classes):
            yield f"class {label}", np.flatnonzero(labels == label)

    def count_per_class(self, field: str, name: str) -> None:
        """Refuses nothing."""

    def facts(self) -> dict[str, Any]:
        """How many classes there are, and their names where they have some."""
        return {"classes": self.classes, **({"class names": [*self.names]} if self.names else {})}

    def __str__(self) -> str:
        return f"one of {self.classes} classes"


@dataclasses.dataclass(frozen=True)
class _Floats(Target):
    """float32 [n, dim]; NaN in every entry for none.

    Attributes:
      dim: numbers of one example.
    """

    dim: int = 1

    @property
    def shape(self) -> tuple[int, ...]:
        """`(dim,)`, of a single number too, so that answers and labels never meet in two shapes."""
        return (self.dim,)

    @property
    def dtype(self) -> np.dtype:
        """float32."""
        return np.dtype(np.float32)

    def hidden(self, examples: int) -> Shaped[np.ndarray, "n ..."]:
        """See `Target`."""
        return np.full((examples, self.dim), np.nan, self.dtype)

    def shown(self, labels: Labels) -> Bool[Array | np.ndarray, " n"]:
        """See `Target`."""
        return (labels == labels).all(-1)  # NaN is not itself

    def read(self, given: np.ndarray, *, n: int, name: str) -> Shaped[np.ndarray, "n ..."]:
        """Numbers [n, dim], or [n] where an example has one; see `Target`."""
        if given.dtype.kind not in "biuf":
            raise BadInput("data", f"labels of {name} are {given.dtype}", "give numbers")
        wanted = f"[{n}, {self.dim}]"
        if given.ndim == 1 and self.dim == 1:
            given = given[:, None]
        if given.shape != (n, self.dim):
            raise BadInput(
                "data",
                f"labels of {name} have shape {list(given.shape)}, and {self} for {n} examples are "
                f"{wanted}",
                "give target the size that they have, and one row for each example",
            )
        with np.errstate(over="ignore"):
            found = np.array(given, self.dtype, order="C", subok=False)
        self.check(found, name=name)
        return found

    def check(self, labels: Shaped[np.ndarray, "n ..."], *, name: str) -> None:
        """Refuses what is not finite, but for NaN in every entry; see `Target`."""
        if self.dim < 1:
            raise BadInput(
                "data", f"{name} has targets of {self.dim} numbers", "there is at least one"
            )
        wrong = np.flatnonzero(~np.isfinite(labels).all(-1) & ~np.isnan(labels).all(-1))
        if wrong.size:
            raise BadInput(
                "data",
                f"the label of example {wrong[0]} of {name} is not finite in float32",
                "NaN in every entry is for none",
            )


@dataclasses.dataclass(frozen=True)
class Values(_Floats):
    """One or several numbers to be predicted: float32 [n, dim], NaN in every entry for none."""

    def __str__(self) -> str:
        return "single values" if self.dim == 1 else f"{self.dim} values"


@dataclasses.dataclass(frozen=True)
class Vectors(_Floats):
    """A direction to be predicted, such as the embedding of a caption: float32 [n, dim], NaN for none.

    Its length says nothing: vectors are compared by their angle.
    """

    def check(self, labels: Shaped[np.ndarray, "n ..."], *, name: str) -> None:
        """Refuses a vector of zeros, too; see `Target`."""
        super().check(labels, name=name)
        wrong = np.flatnonzero((labels == 0).all(-1))
        if wrong.size:
            raise BadInput(
                "data",
                f"the label of example {wrong[0]} of {name} is zero, which has no direction",
                "NaN in every entry is for none",
            )

    def __str__(self) -> str:
        return f"vectors of {self.dim}"


@dataclasses.dataclass(frozen=True)
class Tags(Target):
    """A class at each position of a sequence: int32 [n, positions], `UNLABELLED` where there is none.

    An example that has no class at any position has no label.

    Attributes:
      classes: how many there are.
      positions: of an example, those of padding counted.
    """

    classes: int
    positions: int

    @property
    def shape(self) -> tuple[int, ...]:
        """`(positions,)`."""
        return (self.positions,)

    @property
    def dtype(self) -> np.dtype:
        """int32."""
        return np.dtype(np.int32)

    def ends(self, labels: Shaped[np.ndarray, "n ..."]) -> Int64[np.ndarray, " n"] | None:
        """See `Target`."""
        known = labels != UNLABELLED
        last = self.positions - known[:, ::-1].argmax(1)
        return np.where(known.any(1), last, 0)

    def hidden(self, examples: int) -> Shaped[np.ndarray, "n ..."]:
        """See `Target`."""
        return np.full((examples, self.positions), UNLABELLED, self.dtype)

    def shown(self, labels: Labels) -> Bool[Array | np.ndarray, " n"]:
        """See `Target`."""
        known: Any = labels >= 0
        return known.any(-1)

    def read(self, given: np.ndarray, *, n: int, name: str) -> Shaped[np.ndarray, "n ..."]:
        """Integers [n, positions]; see `Target`."""
        if given.shape != (n, self.positions) or given.dtype.kind not in "iu":
            raise BadInput(
                "data",
                f"labels of {name} are {given.dtype}{list(given.shape)}",
                f"give the number of the class at each position, integers [{n}, {self.positions}], "
                f"and {UNLABELLED} for none",
            )
        self.check(given, name=name)
        return np.array(given, self.dtype, order="C", subok=False)

    def check(self, labels: Shaped[np.ndarray, "n ..."], *, name: str) -> None:
        """As of `Classes`."""
        Classes(self.classes).check(labels, name=name)

    def __str__(self) -> str:
        return f"one of {self.classes} classes at each of {self.positions} positions"


def target_of(classes: Any, target: Target | None, *, name: str) -> Target:
    """The target that a user says: it, or how many classes there are.

    Raises:
      BadInput: neither or both are given, or the classes are no number.
    """
    if target is not None and classes is None:
        return target
    if target is not None:
        raise BadInput("data", f"{name} is given classes and target", "give one of the two")
    if isinstance(classes, bool) or not isinstance(classes, int | np.integer):
        raise BadInput("data", f"{name} needs the number of its classes", f"{classes!r} is none")
    return Classes(int(classes))
