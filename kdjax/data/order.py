"""The order in which training reads a dataset, a pure function of seed and step; and what it mixes.

Position `p` of the endless stream is place `p % n` of the order of epoch `p // n`. A batch is a run of
positions, so it may straddle two epochs: shapes are static and each epoch sees every example once.
"""

import functools
from collections.abc import Callable

import numpy as np
from jaxtyping import Int64, UInt32


def shuffled(seed: int, number: int, n: int) -> Int64[np.ndarray, " n"]:
    """`0` to `n - 1` in the order of this number, such as an epoch: below 2**63."""
    # Raw bits of a bit generator are the same in every release of NumPy; shuffles are not.
    key = np.array([seed, number], np.uint64)
    return np.argsort(np.random.Philox(key=key).random_raw(n), kind="stable")


_epoch = functools.lru_cache(maxsize=4)(shuffled)


def rows_at(
    positions: Int64[np.ndarray, " batch"], *, n: int, seed: int
) -> tuple[Int64[np.ndarray, " batch"], UInt32[np.ndarray, " batch"]]:
    """The rows of a dataset of `n` examples at these positions, and the epoch of each.

    Batch `step` of size `b` is `rows_at(np.arange(step * b, (step + 1) * b), ...)`.
    """
    return placed(positions, n=n, order=lambda epoch: _epoch(seed, epoch, n))


def placed(
    positions: Int64[np.ndarray, " batch"],
    *,
    n: int,
    order: Callable[[int], Int64[np.ndarray, " n"]],
) -> tuple[Int64[np.ndarray, " batch"], UInt32[np.ndarray, " batch"]]:
    """As `rows_at`, in whichever order of an epoch."""
    epochs, places = np.divmod(positions, n)
    rows = np.empty_like(positions)
    for epoch in np.unique(epochs):
        here = epochs == epoch
        rows[here] = order(int(epoch))[places[here]]
    return rows, epochs.astype(np.uint32)


class Shuffled:
    """The order of examples in batches of one size, each epoch shuffled anew."""

    def __init__(self, n: int, *, seed: int, batch: int):
        """Of `n` examples, `batch` of them a step, over all processes."""
        self._n, self._seed, self._batch = n, seed, batch

    def rows(self, step: int) -> tuple[Int64[np.ndarray, " batch"], UInt32[np.ndarray, " batch"]]:
        """The rows of the whole batch of a step, and the epoch of each."""
        positions = np.arange(step * self._batch, (step + 1) * self._batch)
        return rows_at(positions, n=self._n, seed=self._seed)

    def padded(self, first: int, end: int) -> dict[str, int]:
        """None but the longest that there may be: see `kdjax.data.grouped`."""
        return {}


@functools.lru_cache(maxsize=4)
def _paired(seed: int, stream: int, view: int, n: int) -> Int64[np.ndarray, " n"]:
    # The second word of an epoch's key is the epoch, below 2**63: no order is also a pairing.
    key = np.array([seed, (1 << 63) | (stream << 32) | view], np.uint64)
    return np.argsort(np.random.Philox(key=key).random_raw(n), kind="stable")


class Partners:
    """The example that each example is mixed with, in each view: see `kdjax.views.batch_mixed`.

    In each view the partners are a permutation, uniform among all of them: every example is a partner
    once, and one or so is its own. Where they are to be `among` fewer examples, each of these is a
    partner equally often, but for one time. It is drawn over the ids in ascending order, so the partner
    of an id depends on the set of ids, the seed, the stream and the view, and not on where the dataset
    keeps them. A view of `n` examples is drawn when it is first asked for and costs a sort of `n`
    numbers; the last four are kept, for all objects together. Threads may share one.
    """

    def __init__(
        self,
        ids: UInt32[np.ndarray, " n"],
        *,
        seed: int,
        stream: int,
        among: Int64[np.ndarray, " m"] | None = None,
    ):
        """Sorts the ids, once.

        Args:
          ids: of the dataset, by row; unique.
          seed: of the run that draws the views, below 2**64.
          stream: from `kdjax.keys.stream_id`, of the stage that draws the views.
          among: rows that are partners, one at least; None for all.
        """
        self._seed, self._stream = seed, stream
        order = np.argsort(ids, kind="stable")
        self._rank = np.empty_like(order)
        self._rank[order] = np.arange(len(ids))
        self._partner = order if among is None else among[np.argsort(ids[among], kind="stable")]

    def rows(
        self, rows: Int64[np.ndarray, " batch"], views: UInt32[np.ndarray, " batch"]
    ) -> Int64[np.ndarray, " batch"]:
        """The row of the partner of each of these rows, in the view of the same place of `views`."""
        partners = np.empty_like(rows)
        for view in np.unique(views):
            here = views == view
            paired = _paired(self._seed, self._stream, int(view), len(self._rank))
            partners[here] = self._partner[paired[self._rank[rows[here]]] % len(self._partner)]
        return partners
