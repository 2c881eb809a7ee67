"""The order in which training reads a dataset: a pure function of seed and step.

Position `p` of the endless stream is place `p % n` of the order of epoch `p // n`. A batch is a run of
positions, so it may straddle two epochs: shapes are static and each epoch sees every example once.
"""

import functools

import numpy as np
from jaxtyping import Int64, UInt32


@functools.lru_cache(maxsize=4)
def _epoch(seed: int, epoch: int, n: int) -> Int64[np.ndarray, " n"]:
    # Raw bits of a bit generator are the same in every release of NumPy; shuffles are not.
    return np.argsort(np.random.Philox(key=[seed, epoch]).random_raw(n), kind="stable")


def rows_at(
    positions: Int64[np.ndarray, " batch"], *, n: int, seed: int
) -> tuple[Int64[np.ndarray, " batch"], UInt32[np.ndarray, " batch"]]:
    """The rows of a dataset of `n` examples at these positions, and the epoch of each.

    Batch `step` of size `b` is `rows_at(np.arange(step * b, (step + 1) * b), ...)`.
    """
    epochs, places = np.divmod(positions, n)
    rows = np.empty_like(positions)
    for epoch in np.unique(epochs):
        here = epochs == epoch
        rows[here] = _epoch(seed, int(epoch), n)[places[here]]
    return rows, epochs.astype(np.uint32)
