"""Which labels may be used: a part of each class, or of all, chosen by seed and id."""

import numpy as np
from jaxtyping import Int64, UInt32, UInt64

from kdjax.data.dataset import Dataset
from kdjax.types import BadInput


def labelled_rows(
    dataset: Dataset,
    *,
    seed: int,
    per_class: int | None = None,
    share: float | None = None,
    field: str = "data",
) -> Int64[np.ndarray, " m"]:
    """The rows whose labels may be used, in their order: so many of each class, by seed and id.

    Where the target of the dataset has no classes of examples, the share is one of all labels.

    The choice depends on the ids alone, not on the order of the dataset, and fewer are a subset of
    more, whether they are counted or a share.

    Args:
      dataset: with all its labels; an example without one is never chosen.
      seed: of the choice.
      per_class: how many of each class.
      share: of each class (see `Target.strata`), rounded, and one at least where the class has any; in
        (0, 1].
      field: that has `labels_per_class` and `labels_share`, for messages.

    Returns:
      All rows with a label where neither is given. A class that is declared and never occurs has none
      in either case.

    Raises:
      BadInput: both are given, one is out of range, there are no classes to count by, or a class has
        examples, but fewer than `per_class`.
    """
    if per_class is None and share is None:
        return np.flatnonzero(dataset.shown)
    if per_class is not None and share is not None:
        raise BadInput(
            f"{field}.labels_share", "labels_per_class is given, too", "give one of the two"
        )
    if per_class is not None and per_class < 1:
        raise BadInput(
            f"{field}.labels_per_class", f"{per_class} is not at least 1", "None is for all"
        )
    if share is not None and not 0.0 < share <= 1.0:
        raise BadInput(f"{field}.labels_share", f"{share} is not in (0, 1]", "0.01 is one percent")
    if per_class is not None:
        dataset.target.count_per_class(f"{field}.labels_per_class", dataset.name)
    score = _draws(seed, dataset.ids)
    chosen = []
    for stratum, rows in dataset.target.strata(dataset.labels):
        if share is not None:
            count = min(len(rows), max(1, round(share * len(rows))))
        else:
            assert per_class is not None
            count = per_class if len(rows) else 0
        if len(rows) < count:
            raise BadInput(
                f"{field}.labels_per_class",
                f"{stratum} of {dataset.name} has {len(rows)} examples, fewer than {per_class}",
                f"give {len(rows)} at most, or labels_share",
            )
        chosen.append(rows[np.argsort(score[rows], kind="stable")[:count]])
    return np.sort(np.concatenate(chosen))


def _draws(seed: int, ids: UInt32[np.ndarray, " n"]) -> UInt64[np.ndarray, " n"]:
    """`np.random.Philox(key=[seed, id]).random_raw()` of all ids at once.

    NumPy counts before it draws, so this is the first word of counter (1, 0, 0, 0).

    Reference: Salmon et al. 2011, https://doi.org/10.1145/2063384.2063405: Philox4x64-10.
    """
    counter = [np.full(len(ids), i == 0, np.uint64) for i in range(4)]
    key = [np.full(len(ids), seed, np.uint64), ids.astype(np.uint64)]
    for _ in range(10):
        high0, low0 = _product(np.uint64(0xD2E7470EE14C6C93), counter[0])
        high1, low1 = _product(np.uint64(0xCA5A826395121157), counter[2])
        counter = [high1 ^ counter[1] ^ key[0], low1, high0 ^ counter[3] ^ key[1], low0]
        key = [key[0] + np.uint64(0x9E3779B97F4A7C15), key[1] + np.uint64(0xBB67AE8584CAA73B)]
    return counter[0]


def _product(
    a: np.uint64, b: UInt64[np.ndarray, " n"]
) -> tuple[UInt64[np.ndarray, " n"], UInt64[np.ndarray, " n"]]:
    """The upper and the lower 64 bits of the 128 of each product."""
    half, low = np.uint64(32), np.uint64(0xFFFFFFFF)
    a1, a0, b1, b0 = a >> half, a & low, b >> half, b & low
    middle = a1 * b0 + ((a0 * b0) >> half)
    carried = a0 * b1 + (middle & low)
    return a1 * b1 + (middle >> half) + (carried >> half), b * a
