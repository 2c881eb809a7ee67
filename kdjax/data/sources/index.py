"""What every picture of a source is: the hash of its content, its size, and whether it can be decoded.

Each is read once. What was found is kept from one start to the next, by the picture's own name and by
what says, without reading it, that it is what it was: the size of its file, its inode and the times of
its last writing and its last change. So a start reads what is new and no more.
"""

import hashlib
import json
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int32, Int64, UInt8
from PIL import Image

from kdjax import alone
from kdjax.data.pictures import Unfit
from kdjax.data.seen import Kept
from kdjax.data.sources import framing
from kdjax.files import from_json

VERSION = 1
"""Of what is kept of a picture."""

TIMES = (1, 2)
"""The columns of a stamp that are times in ns: of the last writing, and of the last change."""

_AT_ONCE = 4096
_HASHED, _HEADER, _PIXELS = 0, 1, 2


@runtime_checkable
class Stored(Protocol):
    """Encoded pictures by row; see `kdjax.data.sources.Encoded`."""

    @property
    def keys(self) -> Sequence[bytes]:
        """The picture's own name, each once."""
        ...

    @property
    def stamps(self) -> Int64[np.ndarray, "n k"]:
        """What says that a picture is what it was."""
        ...

    @property
    def content(self) -> Callable[[int], bytes]:
        """Of the picture of a row."""
        ...


class Index(NamedTuple):
    """What the pictures are.

    Attributes:
      hashes: SHA-256 of each.
      sizes: height and width as it is seen, zeros of what was not looked at.
      faults: what is wrong with one, by row.
    """

    hashes: UInt8[np.ndarray, "n 32"]
    sizes: Int32[np.ndarray, "n 2"]
    faults: Mapping[int, str]


@cache
def workers() -> ThreadPoolExecutor:
    """Threads that decode, one for each core of this process; Pillow lets go of the interpreter."""
    return ThreadPoolExecutor(alone.cores(), thread_name_prefix="kdjax-pictures")


def index(
    stored: Stored,
    wanted: Callable[[int, bytes], bool],
    *,
    pixels: bool,
    what: Any,
    kept: Kept | None,
) -> Index:
    """Reads every picture that has not been read before.

    Args:
      stored: the pictures.
      wanted: `(row, hash) -> whether it must be one that can be decoded`; of the others the hash is
        enough.
      pixels: those are decoded; otherwise their headers are looked at, and a picture that is cut short
        is found when it is read.
      what: the pictures are of, as plain data, for `kept`.
      kept: what earlier starts have found.
    """
    n, begun = len(stored.keys), time.time_ns()
    level = _PIXELS if pixels else _HEADER
    hashes, sizes = np.zeros((n, 32), np.uint8), np.zeros((n, 2), np.int32)
    levels = np.full(n, -1, np.int8)
    faults: dict[int, str] = {}
    table = None if kept is None else kept.table([VERSION, what])
    if kept is not None and table is not None:
        for row, old in _same(stored, table, settled_ns=kept.settled_ns):
            hashes[row], sizes[row] = table["hashes"][old], table["sizes"][old]
            levels[row] = table["levels"][old]
        old_faults: dict[str, str] = from_json(table["faults"].tobytes())
        rows = {key: row for row, key in enumerate(stored.keys)} if old_faults else {}
        for text, fault in old_faults.items():
            row = rows.get(bytes.fromhex(text))
            if row is not None and levels[row] >= 0:
                faults[row] = fault
    unread = [
        row
        for row in range(n)
        if levels[row] < 0 or (levels[row] < level and wanted(row, hashes[row].tobytes()))
    ]

    def look(row: int) -> _Found:
        return _look(stored, row, wanted, pixels=pixels)

    passing = {}
    for row, found in zip(unread, _mapped(look, unread), strict=True):
        hashes[row] = np.frombuffer(found.hash, np.uint8)
        sizes[row], levels[row] = found.size, found.level
        if found.fault is not None:
            (faults if found.level >= 0 else passing)[row] = found.fault
    if kept is not None and (unread or table is None or len(table["ends"]) != n):
        kept.keep([VERSION, what], _table(stored, hashes, sizes, levels, faults, begun))
    return Index(hashes, sizes, {**faults, **passing})


class _Found(NamedTuple):
    hash: bytes
    size: tuple[int, int]
    level: int
    fault: str | None


def _look(
    stored: Stored, row: int, wanted: Callable[[int, bytes], bool], *, pixels: bool
) -> _Found:
    try:
        content = stored.content(row)
    except OSError as error:  # not kept: another time it may be there
        return _Found(bytes(32), (0, 0), -1, f"it cannot be read ({error.strerror or error})")
    except Unfit as error:
        return _Found(bytes(32), (0, 0), -1, str(error))
    digest = hashlib.sha256(content).digest()
    if not wanted(row, digest):
        return _Found(digest, (0, 0), _HASHED, None)
    level = _PIXELS if pixels else _HEADER
    try:
        return _Found(digest, framing.looked_at(content, pixels=pixels), level, None)
    except Unfit as error:
        return _Found(digest, (0, 0), level, str(error))


def _mapped(look: Callable[[int], _Found], rows: Sequence[int]) -> Iterator[_Found]:
    """In their order, by all workers, and never more at a time than memory bears."""
    with warnings.catch_warnings():
        # What Pillow only warns of is refused, and named with its file.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        for start in range(0, len(rows), _AT_ONCE):
            yield from list(workers().map(look, rows[start : start + _AT_ONCE]))


def _same(
    stored: Stored, table: Mapping[str, np.ndarray], *, settled_ns: int
) -> Iterator[tuple[int, int]]:
    """`(row, row in the table)` of the pictures that are what they were."""
    whole, ends = table["keys"].tobytes(), table["ends"].tolist()
    old = {whole[a:b]: i for i, (a, b) in enumerate(zip([0, *ends[:-1]], ends, strict=True))}
    last = int(table["begun"][0]) - settled_ns
    stamps, before = stored.stamps, table["stamps"]
    if stamps.shape[1] != before.shape[1]:
        return
    for row, key in enumerate(stored.keys):
        at = old.get(key)
        if at is None or (stamps[row] != before[at]).any():
            continue
        if max(int(stamps[row, i]) for i in TIMES) < last:
            yield row, at


def _table(
    stored: Stored,
    hashes: np.ndarray,
    sizes: np.ndarray,
    levels: np.ndarray,
    faults: Mapping[int, str],
    begun: int,
) -> dict[str, np.ndarray]:
    known = np.flatnonzero(levels >= 0)
    keys = [stored.keys[row] for row in known.tolist()]
    said = {stored.keys[row].hex(): fault for row, fault in faults.items()}
    return {
        "keys": np.frombuffer(b"".join(keys), np.uint8),
        "ends": np.cumsum([len(key) for key in keys], dtype=np.int64),
        "stamps": stored.stamps[known],
        "hashes": hashes[known],
        "sizes": sizes[known],
        "levels": levels[known],
        "faults": np.frombuffer(json.dumps(said).encode(), np.uint8),
        "begun": np.array([begun]),
    }
