"""What all records of a prepared split say, read once and kept from one start to the next.

To know its labels, its ids and that its images are those of the last run, every record of a split is
read: 0.1 ms each, minutes for a large set. What was read is kept in one file a split, with the SHA-256
of every file of the set that it was read from. It counts only for exactly these:

* a file of the set is hashed again unless its size, its inode and the times of its last writing and of
  its last change are what they were when it was hashed (the last of these, nobody can set back);
* an object of a bucket, which is never changed in place, is known by its size and time of writing;
* what is kept is itself under a SHA-256: damaged, cut short or of another version it is as if absent.

All labels of the split are in the file, as they are in the set; which of them a stage may see is decided
by those who read it.
"""

import dataclasses
import hashlib
import io
import itertools
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from etils import epath
from jaxtyping import Int32, UInt32

from kdjax import files, fingerprint
from kdjax.files import from_json

VERSION = 1
"""Of the file and of what is read from a record: raised when either changes."""

SETTLED_SECONDS = 2.0
"""A file changed so shortly before it was hashed may change again without another time to show for it."""

_THREADS = 2
_SEAL_BYTES = hashlib.sha256().digest_size


@dataclasses.dataclass(frozen=True)
class Seen:
    """What the records of a split say.

    Attributes:
      shape: height, width and channels of every image.
      labels: as they stand there.
      ids: unique, see `kdjax.data.unique_ids`.
      own: the ids as they stand there, numbers or texts; a range where the rows are the ids.
      images: hash of the images as they are stored.
      own_ids: hash of the ids as they stand there.
    """

    shape: tuple[int, int, int]
    labels: Int32[np.ndarray, " n"]
    ids: UInt32[np.ndarray, " n"]
    own: Sequence[Any]
    images: str
    own_ids: str


class Kept:
    """The folder of what splits have said. What is new is held until `write`."""

    def __init__(self, folder: epath.PathLike, *, settled_seconds: float = SETTLED_SECONDS):
        """Nothing is read or made yet.

        Args:
          folder: of the files; need not exist.
          settled_seconds: a file of the set that was changed at most so long before it was hashed is
            hashed again at the next start.
        """
        self._folder = epath.Path(folder)
        self._settled_ns = round(settled_seconds * 1e9)
        self._new: dict[epath.Path, bytes] = {}

    def seen(
        self,
        what: Mapping[str, Any],
        paths: Sequence[epath.PathLike],
        read: Callable[[], Seen],
    ) -> Seen:
        """What is kept of a split, or else what `read` says.

        Args:
          what: the split and what is read of it, as plain data.
          paths: all files of the set that it is read from.
          read: reads every record.
        """
        path = self._folder / f"{fingerprint.of_json([VERSION, what])}.npz"
        begun, stats, before = time.time_ns(), [stat(p) for p in paths], _opened(path)
        if before is not None and len(before.sums) == len(paths):
            hashed = before.unchanged(stats, settled_ns=self._settled_ns)
            if before.is_of(paths, stats, hashed):
                if not all(hashed):
                    self._new[path] = _spelled(
                        dataclasses.replace(before, stats=stats, begun=begun)
                    )
                return before.seen
        with ThreadPoolExecutor(_THREADS) as pool:
            # Beside the reading, which brings the files into memory for both.
            promised = [pool.submit(_sum, *both) for both in zip(paths, stats, strict=True)]
            try:
                seen = read()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
            sums = [promise.result() for promise in promised]
        # One that has changed meanwhile was perhaps read as it was, and hashed as it is.
        if None not in sums and stats == [stat(p) for p in paths]:
            self._new[path] = _spelled(_File(seen, sums, stats, begun))
        return seen

    def table(self, what: Any) -> Mapping[str, np.ndarray] | None:
        """Arrays that this start, or an earlier one, has given to `keep`; None where none are whole.

        Args:
          what: they are of, as plain data.
        """
        path = self._table(what)
        content = self._new.get(path)
        if content is None:
            try:
                content = path.read_bytes()
            except OSError:
                return None
        whole = _unsealed(content)
        if whole is None:
            return None
        with np.load(io.BytesIO(whole), allow_pickle=False) as arrays:
            return {**arrays}

    def keep(self, what: Any, arrays: Mapping[str, np.ndarray]) -> None:
        """Holds arrays for `table`, in the place of those that it had of the same."""
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, **arrays)
        self._new[self._table(what)] = _sealed(buffer.getvalue())

    def _table(self, what: Any) -> epath.Path:
        return self._folder / f"table-{fingerprint.of_json([VERSION, what])}.npz"

    @property
    def settled_ns(self) -> int:
        """How long a file must have been left alone, before it was hashed, not to be hashed again."""
        return self._settled_ns

    def write(self) -> None:
        """Writes what is new, each file in one move.

        Raises:
          StorageFailed: it cannot be written.
        """
        if self._new:
            with files.storing(self._folder):
                self._folder.mkdir(parents=True, exist_ok=True)
        for path, content in self._new.items():
            files.write(path, content)
        self._new.clear()


_Stat = tuple[int, ...]
"""Size, time of writing in ns, and of a file system the time of the last change in ns and the inode."""


@dataclasses.dataclass(frozen=True)
class _File:
    """What one file keeps.

    Attributes:
      seen: of the split.
      sums: SHA-256 of each file of the set that it was read from.
      stats: of these files, when they were hashed.
      begun: when that was, in ns.
    """

    seen: Seen
    sums: Sequence[str | None]
    stats: Sequence[_Stat]
    begun: int

    def unchanged(self, stats: Sequence[_Stat], *, settled_ns: int) -> list[bool]:
        """Which files are, as their stats say, what they were when they were hashed."""
        last = self.begun - settled_ns
        both = zip(self.stats, stats, strict=True)
        return [then == now and max(now[1:3]) < last for then, now in both]

    def is_of(
        self, paths: Sequence[epath.PathLike], stats: Sequence[_Stat], unchanged: Sequence[bool]
    ) -> bool:
        """Whether the files are those that were read; those that may have changed are hashed."""
        if any(then[0] != now[0] for then, now in zip(self.stats, stats, strict=True)):
            return False
        asked = [i for i, same in enumerate(unchanged) if not same]
        with ThreadPoolExecutor(_THREADS) as pool:
            found = pool.map(lambda i: _sum(paths[i], stats[i]), asked)
            return all(self.sums[i] == s for i, s in zip(asked, found, strict=True))


def stat(path: epath.PathLike) -> _Stat:
    """What a file is known by without reading it, see `_Stat`."""
    if not files.is_local(path):
        found = epath.Path(path).stat()
        return (found.length, int(found.mtime) * 10**9)
    found = os.stat(path)
    return (found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)


def _sum(path: epath.PathLike, known: _Stat) -> str | None:
    """SHA-256 of a file, or of what an object of a bucket is known by; None if it cannot be read."""
    if not files.is_local(path):
        return fingerprint.of_json([os.path.basename(os.fspath(path)), known])
    try:
        return files.sha256(path)
    except OSError:
        return None


def _spelled(file: _File) -> bytes:
    """A file's content: SHA-256 of all that follows, then arrays in NumPy's format."""
    seen = file.seen
    said = {
        "shape": seen.shape,
        "images": seen.images,
        "own_ids": seen.own_ids,
        "sums": list(file.sums),
        "stats": list(file.stats),
        "begun": file.begun,
    }
    arrays = {"labels": seen.labels, "ids": seen.ids, **_spelled_ids(seen.own)}
    buffer = io.BytesIO()
    text = np.frombuffer(json.dumps(said).encode(), np.uint8)
    np.savez(buffer, allow_pickle=False, said=text, **arrays)
    return _sealed(buffer.getvalue())


def _sealed(content: bytes) -> bytes:
    return hashlib.sha256(content).digest() + content


def _unsealed(content: bytes) -> bytes | None:
    """What was sealed, None where it is not whole."""
    seal, inner = content[:_SEAL_BYTES], content[_SEAL_BYTES:]
    return inner if hashlib.sha256(inner).digest() == seal else None


def _spelled_ids(own: Sequence[Any]) -> dict[str, np.ndarray]:
    if isinstance(own, range):
        return {}
    if not isinstance(own[0], bytes):
        return {"numbers": np.asarray(own)}
    # NumPy's own arrays of texts lose zeros at their ends.
    ends = np.cumsum([len(text) for text in own], dtype=np.int64)
    return {"texts": np.frombuffer(b"".join(own), np.uint8), "ends": ends}


def _opened(path: epath.Path) -> _File | None:
    """What an earlier start has left; None where it has left nothing whole."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    if (whole := _unsealed(content)) is None:
        return None
    with np.load(io.BytesIO(whole), allow_pickle=False) as arrays:
        said = from_json(arrays["said"].tobytes())
        labels, ids = arrays["labels"], arrays["ids"]
        own: Sequence[Any] = range(len(ids))
        if "numbers" in arrays:
            own = arrays["numbers"].tolist()
        elif "texts" in arrays:
            whole, ends = arrays["texts"].tobytes(), arrays["ends"].tolist()
            own = [whole[start:end] for start, end in itertools.pairwise([0, *ends])]
    height, width, channels = said["shape"]
    seen = Seen((height, width, channels), labels, ids, own, said["images"], said["own_ids"])
    return _File(seen, said["sums"], [tuple(stat) for stat in said["stats"]], said["begun"])
