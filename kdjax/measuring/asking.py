"""What a function of inputs says of a whole dataset, on the host, and kept in a file."""

import collections
import hashlib
import io
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from etils import epath
from jaxtyping import Float32, Int

from kdjax import data, files
from kdjax.types import PyTree

_AHEAD = 2
"""Batches that the device is given before what it says of the first one is waited for."""

_DIGEST_BYTES = 32


def over(
    ask: Callable[[Any], Any],
    read: Callable[[Int[np.ndarray, " b"]], Any],
    n: int,
    *,
    batch: int,
) -> PyTree:
    """What `ask` says of `read(rows)` of all `n` rows, on the host, in batches of one size.

    The next batches are read while the device computes.
    """
    waiting: collections.deque[tuple[int, Any]] = collections.deque()
    parts: list[Any] = []

    def wait() -> None:
        here, found = waiting.popleft()
        parts.append(jax.tree.map(lambda x: np.array(x[:here]), jax.device_get(found)))

    for start in range(0, n, batch):
        rows = np.arange(start, min(start + batch, n))
        filled = np.pad(rows, (0, batch - len(rows)), mode="edge")
        waiting.append((len(rows), ask(read(filled))))
        if len(waiting) > _AHEAD:
            wait()
    while waiting:
        wait()
    return jax.tree.map(lambda *x: np.concatenate(x), *parts)


def over_alike(
    ask: Callable[[Any], Any], dataset: data.Dataset, widths: data.Widths | None, *, batch: int
) -> Float32[np.ndarray, "n dim"]:
    """Of all examples, in their order; those of like length are asked together, padded to the longest."""
    if widths is None:
        return over(ask, dataset.read, len(dataset), batch=batch)
    turns = widths.alike(np.arange(len(dataset)))

    def read(places: Int[np.ndarray, " b"]) -> dict[str, np.ndarray]:
        rows = turns[places]
        return data.cut(dataset.read(rows), widths.of(rows))

    found = over(ask, read, len(dataset), batch=batch)
    return found[np.argsort(turns)]


def kept(
    path: epath.Path, shape: tuple[int, int], make: Callable[[], Float32[np.ndarray, "n dim"]]
) -> Float32[np.ndarray, "n dim"]:
    """What is in the file, or what `make` gives, which is then moved there whole.

    The name of the stage's folder has the fingerprint of its encoder and its data, so no others are
    ever found. What is no array of this shape, or not what was written, is made anew.

    Raises:
      ValueError: the features are not finite.
    """
    if (found := _read_kept(path)) is not None and (found.shape, found.dtype) == (
        shape,
        np.float32,
    ):
        return found
    made = make()
    if not np.isfinite(made).all():
        raise ValueError(
            f"{path}: not all features are finite; look at the training of the encoder"
        )
    buffer = io.BytesIO()
    np.save(buffer, made, allow_pickle=False)
    content = buffer.getvalue()
    files.write(path, content + hashlib.sha256(content).digest())
    return made


def _read_kept(path: epath.Path) -> np.ndarray | None:
    """The array in a file that ends with its own SHA-256, which `np.load` does not look at."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    content, digest = content[:-_DIGEST_BYTES], content[-_DIGEST_BYTES:]
    if hashlib.sha256(content).digest() != digest:
        return None
    return np.load(io.BytesIO(content), allow_pickle=False)
