"""Real data that a package brings along: no download, no directory."""

import functools

import numpy as np
from etils import epy
from jaxtyping import Int64, UInt8

from kdjax.data.arrays import from_arrays
from kdjax.data.dataset import Dataset
from kdjax.types import BadInput

with epy.lazy_imports():  # slow to import, and other sets do without
    import sklearn.datasets
    import tensorflow_datasets as tfds

_TEST_PER_CLASS = 36


def digits(split: str) -> Dataset:
    """The UCI handwritten digits of scikit-learn: 8x8, one channel, ten classes.

    1,797 images; `test` holds 36 of each class, `train` the other 1,437. An id is the row in
    scikit-learn's array. Splits can be cut and joined as TFDS does: `train[:80%]`, `train+test`. A cut
    has its share of each class, to within an example or two, and its examples stand in the order in
    which they stand in the whole split; cuts that together are the split have each example once.

    Raises:
      BadInput: there is no such split, or nothing in it.

    Reference: Alpaydin and Kaynak 1998, https://doi.org/10.24432/C50P49.
    """
    images, labels = _whole()
    order = np.argsort(np.random.Philox(key=[0, 0]).random_raw(len(images)), kind="stable")
    test = np.concatenate([order[labels[order] == c][:_TEST_PER_CLASS] for c in range(10)])
    rows = {"train": order[~np.isin(order, test)], "test": order[np.isin(order, test)]}
    splits = tfds.core.SplitDict(
        [
            tfds.core.SplitInfo(name=name, shard_lengths=[len(r)], num_bytes=0)
            for name, r in rows.items()
        ]
    )
    try:
        cuts = tfds.core.ReadInstruction.from_spec(split).to_absolute(splits)
    except (ValueError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise BadInput("data", f"split {split!r} of digits: {reason}") from None
    chosen = np.concatenate([_cut(rows[c.splitname], labels, c.from_, c.to) for c in cuts])
    return from_arrays(
        images[chosen],
        labels[chosen],
        classes=10,
        ids=chosen.astype(np.uint32),
        name=f"digits {split}",
    )


@functools.cache
def _whole() -> tuple[UInt8[np.ndarray, "n 8 8 1"], Int64[np.ndarray, " n"]]:
    """All images and labels. scikit-learn parses text: once for all splits of a process."""
    pixels, labels = sklearn.datasets.load_digits(return_X_y=True)
    images = np.round(pixels.reshape(-1, 8, 8, 1) * (255 / 16)).astype(np.uint8)
    for array in (images, labels):
        array.setflags(write=False)
    return images, labels


def _cut(
    rows: Int64[np.ndarray, " n"],
    labels: Int64[np.ndarray, " m"],
    start: int | None,
    stop: int | None,
) -> Int64[np.ndarray, " k"]:
    """Rows `start` to `stop` in rank, None for the ends, in their order.

    The `i`-th of the `n` examples of a class is ranked by `(2 i + 1) / 2 n`, so that the classes of the
    first `k` in rank are as those of all.
    """
    share = np.empty(len(rows))
    for label in np.unique(labels[rows]):
        (here,) = np.nonzero(labels[rows] == label)
        share[here] = (2 * np.arange(len(here)) + 1) / (2 * len(here))
    ranked = np.argsort(share, kind="stable")
    return rows[np.sort(ranked[start:stop])]
