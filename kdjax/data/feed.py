"""What each step is fed: rows of arrays that live on the device, or the examples themselves.

Both modes give the same batches in the same order. A feed holds `steps` batches: each of its arrays
is [steps, rows of this process, ...].
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, SupportsIndex, TypeAlias

import jax
import numpy as np
from etils import epy
from jaxtyping import Int, Int64, UInt32

from kdjax.data.dataset import Dataset
from kdjax.data.grouped import Grouped, Widths, cut
from kdjax.data.order import Shuffled
from kdjax.types import Batch, PyTree

with epy.lazy_imports():  # slow to import, and sets in memory do without
    import grain

Feed: TypeAlias = Mapping[str, Any]
"""Arrays of a batch by name, or dicts of them: `inputs` has those of the dataset's fields."""

Join: TypeAlias = Callable[[Int[np.ndarray, " b"], UInt32[np.ndarray, " b"]], Feed]
"""`(rows, epochs) -> more arrays of the batch`, such as what a teacher says of these examples."""


def chunks(start: int, stop: int, size: int) -> Iterator[tuple[int, int]]:
    """Runs of at most `size` steps that end at multiples of `size`, and the last at `stop`."""
    while start < stop:
        end = min(stop, (start // size + 1) * size)
        yield start, end
        start = end


def resident_arrays(dataset: Dataset) -> dict[str, Any]:
    """What lives on the device: all examples, by row."""
    return {"id": dataset.ids, "inputs": dataset.inputs(), "label": dataset.labels}


def resident_feeds(
    n: int,
    *,
    seed: int,
    batch: int,
    share: slice,
    start: int,
    stop: int,
    dispatch_steps: int,
    join: Join = lambda rows, epochs: {},
) -> Iterator[tuple[int, Feed]]:
    """`(step after it, {"row": int32, "epoch": uint32})`: rows to look up on the device.

    Args:
      n: examples of the dataset.
      seed: of the order.
      batch: examples of a step, over all processes.
      share: this process's rows of a batch.
      start: first step.
      stop: step to stop before.
      dispatch_steps: steps of a feed; feeds end at multiples of it.
      join: adds arrays to each batch.
    """
    order = Shuffled(n, seed=seed, batch=batch)

    def at(step: int) -> Feed:
        rows, epochs = (own[share] for own in order.rows(step))
        return {"row": rows.astype(np.int32), "epoch": epochs, **join(rows, epochs)}

    for first, end in chunks(start, stop, dispatch_steps):
        yield end, _stack([at(step) for step in range(first, end)])


class _Steps:
    """Random access to batches by step: what grain's workers read."""

    def __init__(
        self,
        dataset: Dataset,
        order: Shuffled | Grouped,
        *,
        share: slice,
        stop: int,
        dispatch_steps: int,
        join: Join,
    ):
        self._dataset, self._order, self._share, self._stop = dataset, order, share, stop
        self._dispatch_steps, self._join = dispatch_steps, join

    def __len__(self) -> int:
        return self._stop

    def __getitem__(self, record_key: SupportsIndex) -> Feed:
        step = int(record_key)
        rows, epochs = (own[self._share] for own in self._order.rows(step))
        # As long as all steps that go to the device together, whichever of them are left to do.
        first = step - step % self._dispatch_steps
        padded = self._order.padded(first, first + self._dispatch_steps)
        return {
            "id": self._dataset.ids[rows],
            "inputs": cut(self._dataset.read(rows), padded),
            "label": self._dataset.labels[rows],
            "epoch": epochs,
            **self._join(rows, epochs),
        }


def stream_feeds(
    dataset: Dataset,
    *,
    seed: int,
    batch: int,
    share: slice,
    start: int,
    stop: int,
    dispatch_steps: int,
    join: Join = lambda rows, epochs: {},
    buckets: Mapping[str, Sequence[int]] | None = None,
    threads: int = 8,
) -> Iterator[tuple[int, Feed]]:
    """`(step after it, {"id", "inputs", "label", "epoch"})`, read ahead by `threads` threads.

    Args:
      dataset: that is read.
      seed: of the order.
      batch: examples of a step, over all processes.
      share: this process's rows of a batch.
      start: first step.
      stop: step to stop before.
      dispatch_steps: steps of a feed; feeds end at multiples of it.
      join: adds arrays to each batch; called by the reading threads.
      buckets: of ragged fields, lengths to pad batches to, see `kdjax.data.grouped`: examples of like
        length come together, and the steps of a feed are padded to the longest of its buckets. By
        default every example is padded to the longest that there may be, and the order is that of
        `resident_feeds`.
      threads: that read.
    """
    order = Shuffled(len(dataset), seed=seed, batch=batch)
    if buckets:
        order = Grouped(Widths(dataset.lengths, buckets), seed=seed, batch=batch)
    steps: Any = _Steps(
        dataset, order, share=share, stop=stop, dispatch_steps=dispatch_steps, join=join
    )
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)
    batches = iter(
        grain.MapDataset.source(steps).slice(slice(start, stop)).to_iter_dataset(options)
    )
    for first, end in chunks(start, stop, dispatch_steps):
        yield end, _stack([next(batches) for _ in range(first, end)])


def _stack(parts: list[Feed]) -> Feed:
    return jax.tree.map(lambda *leaves: np.stack(leaves), *parts)


def join_partners(
    dataset: Dataset,
    rows_of: Callable[[Int[np.ndarray, " b"], UInt32[np.ndarray, " b"]], Int64[np.ndarray, " b"]],
    *,
    resident: bool,
) -> Join:
    """Adds to a batch the examples that its own are mixed with: `partner_id`, `_inputs`, `_label`.

    Args:
      dataset: of both.
      rows_of: `(rows, epochs) -> rows` of the partners, see `Partners`.
      resident: the dataset is on the device, where `take` looks the partners up.
    """

    def join(rows, epochs):
        partners = rows_of(rows, epochs)
        if resident:
            return {"partner_row": partners.astype(np.int32)}
        return {
            "partner_id": dataset.ids[partners],
            "partner_inputs": dataset.read(partners),
            "partner_label": dataset.labels[partners],
        }

    return join


def take(resident: PyTree, feed: Batch) -> dict[str, Any]:
    """On the device: the batch of one step, whichever mode feeds it."""
    found = dict(feed)
    for prefix in ("", "partner_"):
        if (rows := feed.get(f"{prefix}row")) is not None:
            for name in ("id", "inputs", "label"):
                found[prefix + name] = jax.tree.map(lambda x, rows=rows: x[rows], resident[name])
    return found
