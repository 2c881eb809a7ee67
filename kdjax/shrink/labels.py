"""Which indices of which axes stand and fall together: a union-find over the indices of all axes.

Every index of an axis has a label. Two indices that an operation ties, such as channel 3 of the two
operands of an addition, get one label. An axis is a row-major product of factors, each a vector of
labels: what a reshape makes of `(height, width, channel)` has three. A vector that a reshape splits
into rows and columns becomes composite: its indices stand for (row, column), and fall with either.
"""

import math
from collections import deque
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

Vector = Int[np.ndarray, "_"]
Axis = tuple[Vector, ...]
"""The factors of an axis, slowest first; none for an axis of length 1."""


def length_of(axis: Axis) -> int:
    """How many indices an axis has."""
    return math.prod(len(vector) for vector in axis)


_UNFIT = "two splits of it do not fit together"


class Labels:
    """The labels of one traced function."""

    def __init__(self):
        self._count = 0
        self._parent, self._row, self._column = (np.zeros(1024, np.int64) for _ in range(3))
        # The columns of the split that made a label composite, 0 for none.
        self._columns = np.zeros(1024, np.int64)
        self._why = np.zeros(1024, np.int64)  # into the reasons, 0 for none
        self._reasons: dict[str, int] = {"": 0}
        self._matched: list[tuple[tuple[Axis, ...], str]] = []

    def axis(self, length: int) -> Axis:
        """An axis that nothing is known of."""
        return () if length == 1 else (self.new(length),)

    def new(self, length: int) -> Vector:
        """Labels that nothing is known of."""
        found = np.arange(self._count, self._count + length)
        self._count += length
        if self._count > len(self._parent):
            more = np.zeros(max(self._count, len(self._parent)), np.int64)
            for name in ("_parent", "_row", "_column", "_columns", "_why"):
                setattr(self, name, np.concatenate([getattr(self, name), more]))
        self._parent[found] = found
        return found

    def roots(self, labels: Int[np.ndarray, "..."]) -> Int[np.ndarray, "..."]:
        """One representative for each label; equal ones stand and fall together."""
        found = self._parent[labels]
        while not np.array_equal(above := self._parent[found], found):
            found = above
        self._parent[labels] = found
        return found

    def freeze(self, axis: Axis, why: str) -> None:
        """No index of this axis may fall."""
        for vector in axis:
            self._freeze(self.roots(vector), why)

    def _freeze(self, roots: Vector, why: str) -> None:
        reason = self._reasons.setdefault(why, len(self._reasons))
        self._why[roots] = np.where(self._why[roots] == 0, reason, self._why[roots])

    def tie(self, first: Axis, second: Axis) -> None:
        """The two axes, of one length, stand and fall together, index by index."""
        left, right = deque(self._factors(first)), deque(self._factors(second))
        while left and right:
            a, b = left.popleft(), right.popleft()
            if len(a) == len(b):
                self._union(a, b)
            elif len(a) > len(b) and len(a) % len(b) == 0 and not self._is_composite(a):
                left.extendleft(reversed(self.split(a, len(b))))
                right.appendleft(b)
            elif len(b) > len(a) and len(b) % len(a) == 0 and not self._is_composite(b):
                right.extendleft(reversed(self.split(b, len(a))))
                left.appendleft(a)
            else:
                for axis in (first, second):
                    self.freeze(axis, _UNFIT)
                return

    def split(self, vector: Vector, rows: int) -> tuple[Vector, Vector]:
        """A vector without a split of its own as `rows` times columns."""
        columns = len(vector) // rows
        row, column = self.new(rows), self.new(columns)
        whole = self.new(len(vector))
        self._row[whole] = np.repeat(row, columns)
        self._column[whole] = np.tile(column, rows)
        self._columns[whole] = columns
        self._union(vector, whole)
        return row, column

    def factors(self, axis: Axis) -> Axis:
        """The same axis in the finest factors known."""
        return tuple(self._factors(axis))

    def _is_composite(self, vector: Vector) -> bool:
        return bool(self._columns[self.roots(vector)].any())

    def _factors(self, axis: Axis) -> list[Vector]:
        found = []
        for vector in axis:
            found += [vector] if len(vector) == 1 else self._expand(vector)
        return found

    def _expand(self, vector: Vector) -> list[Vector]:
        """The factors of a vector; itself where it is not split, or not in one regular way."""
        roots = self.roots(vector)
        columns = self._columns[roots]
        n = columns[0]
        if not n or (columns != n).any() or len(vector) % n:
            return [vector]
        row = self.roots(self._row[roots]).reshape(-1, n)
        column = self.roots(self._column[roots]).reshape(-1, n)
        if (row != row[:, :1]).any() or (column != column[:1]).any():
            return [vector]
        return [*self._expand(row[:, 0]), *self._expand(column[0])]

    def _union(self, first: Vector, second: Vector) -> None:
        """Ties two vectors, index by index, and the rows and columns of what is composite in both."""
        pending = [(first, second)]
        while pending:
            a, b = pending.pop()
            while True:
                ra, rb = self.roots(a), self.roots(b)
                low, high = np.minimum(ra, rb), np.maximum(ra, rb)
                differ = low != high
                if not differ.any():
                    break
                low, high = low[differ], high[differ]
                # One step at a time for each label: its own data moves with it.
                fit = ~np.isin(low, high)
                low, high = low[fit], high[fit]
                _, once = np.unique(high, return_index=True)
                low, high = low[once], high[once]
                _, once = np.unique(low, return_index=True)
                low, high = low[once], high[once]
                self._why[low] = np.where(self._why[low] == 0, self._why[high], self._why[low])
                both = (self._columns[low] > 0) & (self._columns[high] > 0)
                only = (self._columns[low] == 0) & (self._columns[high] > 0)
                for values in (self._row, self._column, self._columns):
                    values[low[only]] = values[high[only]]
                self._parent[high] = low
                low, high = low[both], high[both]
                unfit = self._columns[low] != self._columns[high]
                if unfit.any():
                    # Neither split is lost: what falls with either is frozen.
                    for part in (self._row, self._column):
                        for labels in (low[unfit], high[unfit]):
                            self._freeze(self._parts(part[labels]).ravel(), _UNFIT)
                low, high = low[~unfit], high[~unfit]
                if len(low):
                    pending.append((self._row[low], self._row[high]))
                    pending.append((self._column[low], self._column[high]))

    def match(self, pieces: Sequence[Axis], why: str) -> None:
        """Pieces cut at fixed places may lose only what all of them lose.

        Whether they fall together is seen when all is tied; where they do not they are frozen.
        """
        self._matched.append((tuple(pieces), why))

    def settle(self) -> None:
        """To be called when all is tied: what is frozen freezes its row and its column, too."""
        for pieces, why in self._matched:
            roots = [np.concatenate([self.roots(v) for v in axis]) for axis in pieces]
            if any(not np.array_equal(found, roots[0]) for found in roots[1:]):
                for axis in pieces:
                    self.freeze(axis, why)
        labels = np.flatnonzero(self._why[: self._count])
        reasons, parts = self._why[labels], self._parts(labels)
        self._why[: self._count] = 0
        for column in parts.T:
            fresh = self._why[column] == 0
            # Written backwards, so that the first reason of several stays.
            self._why[column[fresh][::-1]] = reasons[fresh][::-1]

    def units(self, vector: Vector) -> list[list[int]]:
        """For each index the labels of which any one takes it away; what is frozen is left out."""
        parts = self._parts(vector)
        free = self._why[parts] == 0
        if parts.shape[1] == 1:
            return [
                [part] if f else []
                for part, f in zip(parts[:, 0].tolist(), free[:, 0], strict=True)
            ]
        return [np.unique(row[f]).tolist() for row, f in zip(parts, free, strict=True)]

    def why(self, vector: Vector) -> str | None:
        """Why no index of it may fall, None where some may."""
        reasons = self._why[self._parts(vector)]
        return None if (reasons == 0).any() else list(self._reasons)[reasons[0, 0]]

    def _parts(self, labels: Vector) -> Int[np.ndarray, "n parts"]:
        """The labels that are not composite which each index stands for; one may come twice."""
        found = self.roots(labels)[:, None]
        while (composite := self._columns[found] > 0).any():
            row, column = self.roots(self._row[found]), self.roots(self._column[found])
            found = np.concatenate(
                [np.where(composite, row, found), np.where(composite, column, found)], axis=1
            )
        return found
