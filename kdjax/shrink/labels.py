"""Which indices of which axes stand and fall together: a union-find over the indices of all axes.

Every index of an axis has a label. Two indices that an operation ties, such as channel 3 of the two
operands of an addition, get one label. An axis is a row-major product of factors, each a vector of
labels: what a reshape makes of `(height, width, channel)` has three. A vector that a reshape splits
into rows and columns becomes composite: its indices stand for (row, column), and fall with either.
"""

from collections import deque

import numpy as np
from jaxtyping import Int

Vector = Int[np.ndarray, " n"]
Axis = tuple[Vector, ...]
"""The factors of an axis, slowest first; none for an axis of length 1."""


class Labels:
    """The labels of one traced function."""

    def __init__(self):
        self._parent = np.zeros(0, np.int64)
        self._row, self._column = np.zeros(0, np.int64), np.zeros(0, np.int64)
        self._columns = np.zeros(
            0, np.int64
        )  # of the split that made a label composite, 0 for none
        self._why: dict[int, str] = {}

    def axis(self, length: int) -> Axis:
        """An axis that nothing is known of."""
        return () if length == 1 else (self.new(length),)

    def new(self, length: int) -> Vector:
        """Labels that nothing is known of."""
        begin = len(self._parent)
        found = np.arange(begin, begin + length)
        self._parent = np.concatenate([self._parent, found])
        zeros = np.zeros(length, np.int64)
        self._row, self._column, self._columns = (
            np.concatenate([x, zeros]) for x in (self._row, self._column, self._columns)
        )
        return found

    def roots(self, vector: Vector) -> Vector:
        """One representative for each label; equal ones stand and fall together."""
        found = self._parent[vector]
        while not np.array_equal(above := self._parent[found], found):
            found = above
        self._parent[vector] = found
        return found

    def freeze(self, axis: Axis, why: str) -> None:
        """No index of this axis may fall."""
        for vector in axis:
            for root in np.unique(self.roots(vector)).tolist():
                self._why.setdefault(root, why)

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
                    self.freeze(axis, "two splits of it do not fit together")
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
                for of_low, of_high in zip(low.tolist(), high.tolist(), strict=True):
                    if of_high in self._why:
                        self._why.setdefault(of_low, self._why[of_high])
                both = (self._columns[low] > 0) & (self._columns[high] > 0)
                only = (self._columns[low] == 0) & (self._columns[high] > 0)
                for values in (self._row, self._column, self._columns):
                    values[low[only]] = values[high[only]]
                self._parent[high] = low
                if both.any():
                    low, high = low[both], high[both]
                    if (self._columns[low] != self._columns[high]).any():
                        for root in low.tolist():
                            self._why.setdefault(root, "two splits of it do not fit together")
                    else:
                        pending.append((self._row[low], self._row[high]))
                        pending.append((self._column[low], self._column[high]))

    def units(self, vector: Vector) -> list[tuple[int, ...]]:
        """For each index the labels of which any one takes it away; what is frozen is left out."""
        self._settle()
        found = []
        for root in self.roots(vector).tolist():
            parts = self._parts(root)
            found.append(tuple(part for part in parts if part not in self._why))
        return found

    def why(self, vector: Vector) -> str | None:
        """Why no index of it may fall, None where some may."""
        self._settle()
        for root in self.roots(vector).tolist():
            parts = self._parts(root)
            if any(part not in self._why for part in parts):
                return None
        return self._why[self._parts(int(self.roots(vector)[0]))[0]]

    def _parts(self, root: int) -> tuple[int, ...]:
        if not self._columns[root]:
            return (root,)
        row, column = self.roots(np.array([self._row[root], self._column[root]])).tolist()
        return (*self._parts(row), *self._parts(column))

    def _settle(self) -> None:
        """What is frozen, by its representative; a frozen composite freezes its row and its column."""
        pending = list(self._why.items())
        self._why = {}
        for label, why in pending:
            for part in self._parts(int(self.roots(np.array([label]))[0])):
                self._why.setdefault(part, why)
