"""Batches of examples of like length: less padding, in an order that is still a function of the seed.

A *bucket* is a length to which examples are padded: the shortest of those stated that holds them all.
What is only asked about, and not learned from, is asked in the order of its buckets (`Widths.alike`).
Each epoch has every example once. Its examples, shuffled, are put together by their buckets, cut into
batches, and the batches shuffled. At most one batch for each two buckets next to each other has examples
of both, and is padded to the longer one. Where an epoch does not end with a batch, the batch between two
epochs is of examples of the smallest bucket, as far as there are enough.
"""

import functools
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Int, Int64, UInt32

from kdjax.data.order import placed, shuffled

_BATCHES = 1 << 62
"""In the second word of a key: of the order of batches, and of no epoch's order."""


class Widths:
    """To how many positions examples are padded when they are read together. Threads may share one."""

    def __init__(
        self,
        lengths: Mapping[str, Int[np.ndarray, " n"]],
        buckets: Mapping[str, Sequence[int]],
    ):
        """Finds each example's bucket, once.

        Args:
          lengths: of all examples in each ragged field.
          buckets: lengths to pad to, ascending, of the fields by which examples are put together; no
            example is longer than the last.
        """
        self._buckets = buckets
        self._of = {
            field: np.searchsorted(np.asarray(ends), lengths[field])
            for field, ends in buckets.items()
        }
        (self.examples,) = {len(own) for own in self._of.values()}

    def alike(self, rows: Int64[np.ndarray, " b"]) -> Int64[np.ndarray, " b"]:
        """The places of these rows in the order of their buckets, of the first field first."""
        # Equal ones stay in their order.
        return np.lexsort([own[rows] for own in reversed(self._of.values())])

    def of(self, rows: Int64[np.ndarray, " b"]) -> dict[str, int]:
        """To how many positions these rows are padded together, by field."""
        return {
            field: int(self._buckets[field][own[rows].max()]) for field, own in self._of.items()
        }


def cut(inputs: Mapping[str, np.ndarray], widths: Mapping[str, int]) -> dict[str, np.ndarray]:
    """Examples padded to so many positions, [b, positions, ...], and all other inputs as they are."""
    return {**inputs} | {field: inputs[field][:, :most] for field, most in widths.items()}


class Grouped:
    """The order of examples in batches of one size. Threads may share one."""

    def __init__(self, widths: Widths, *, seed: int, batch: int):
        """Finds the order of an epoch when it is first asked for.

        Args:
          widths: of all examples.
          seed: of the order.
          batch: examples of a step, over all processes.
        """
        self._seed, self._batch, self._widths, self._n = seed, batch, widths, widths.examples
        self._order = functools.lru_cache(maxsize=4)(self._order_of)

    def rows(self, step: int) -> tuple[Int64[np.ndarray, " batch"], UInt32[np.ndarray, " batch"]]:
        """The rows of the whole batch of a step, and the epoch of each."""
        positions = np.arange(step * self._batch, (step + 1) * self._batch)
        return placed(positions, n=self._n, order=self._order)

    def padded(self, first: int, end: int) -> dict[str, int]:
        """To how many positions the batches of these steps are padded, by field."""
        return self._widths.of(np.concatenate([self.rows(step)[0] for step in range(first, end)]))

    def _order_of(self, epoch: int) -> Int64[np.ndarray, " n"]:
        rows = shuffled(self._seed, epoch, self._n)
        rows = rows[self._widths.alike(rows)]  # those of a bucket stay shuffled
        before = -(epoch * self._n) % self._batch  # places until the next batch begins
        before = min(before, self._n)
        count, after = divmod(self._n - before, self._batch)
        ends, whole = rows[: before + after], rows[before + after :].reshape(count, self._batch)
        whole = whole[shuffled(self._seed, _BATCHES | epoch, count)]
        return np.concatenate([ends[:before], whole.ravel(), ends[before:]])
