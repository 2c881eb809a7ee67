"""Writes a cache: by several processes at once, and on from where it was stopped."""

import collections
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import tensorstore as ts
from etils import epath
from jaxtyping import Array, Int, UInt32

from kdjax.teacher import layout, storage
from kdjax.teacher.signals import Signal
from kdjax.types import BadFile, BadInput

_AHEAD = 2
"""Batches that are read and sent to the device before the first of them is waited for."""

Ask = Callable[[Int[np.ndarray, " batch"], int], Mapping[str, Array]]
"""`(rows of ids, view) -> parts of the signal`, [batch, ...] each, always of one batch size."""

Alike = Callable[[Int[np.ndarray, " rows"]], Int[np.ndarray, " rows"]]
"""`rows -> their places in the order in which they are asked`, by which like ones come together."""


class NotFinite(BadInput):
    """A teacher says what the dtype of a cache cannot hold.

    Attributes:
      part: of the signal.
      id, view: of the first example and view.
      dtype: of the part.
    """

    def __init__(self, part: str, id: int, view: int, dtype: str):
        super().__init__(
            "",
            f"{part} of id {id}, view {view} are not finite in {dtype}",
            "store them as float32, or look at the teacher",
        )
        self.part, self.id, self.view, self.dtype = part, id, view, dtype


def write(
    folder: epath.PathLike,
    *,
    ids: UInt32[np.ndarray, " n"],
    views: int,
    signal: Signal,
    ask: Ask,
    batch: int,
    binding: Mapping[str, Any],
    alike: Alike | None = None,
    chunk_bytes: int | None = None,
    process: int = 0,
    processes: int = 1,
    barrier: Callable[[str], None] = lambda name: None,
) -> None:
    """Asks the teacher for every view of every example and keeps its signal.

    The work is cut into chunks of (view, run of ids), which the processes deal out among themselves.
    A chunk that is there is whole, so writing goes on from any moment at which it was stopped, and
    what comes out is the same bytes. The manifest comes last: a folder that has one is finished.

    Args:
      folder: local or `gs://`. What is there of the same binding is kept, anything else is deleted.
      ids: of the examples, unique.
      views: of each example.
      signal: what is kept.
      ask: the teacher. Called from a thread of its own, ahead of what is waited for.
      batch: rows of a call; rows are repeated where a chunk has fewer left.
      binding: plain data that says what the signal is of; a reader must expect the same.
      alike: in which order the rows of a chunk are asked: those of like length one after the other. They
        are kept in the order of their ids all the same. None for that order here, too.
      chunk_bytes: of the largest part of a chunk, about 4 MiB by default.
      process: which one this is.
      processes: how many write.
      barrier: waits until every process has come to the name; the first process sets the folder up
        before the others begin, and finishes it after they are done.

    Raises:
      BadInput: the processes do not see each other's files.
      NotFinite: a value is not finite in the stored dtype; the line has the id and the view.
    """
    files = storage.Folder(folder)
    parts = signal.parts()
    more = {} if chunk_bytes is None else {"chunk_bytes": chunk_bytes}
    chunk = storage.chunk_examples(len(ids), parts, **more)
    bound = layout.plain({"format": layout.FORMAT, **binding})
    if process == 0 and not _finished(files, bound):
        _set_up(files, bound, ids=ids, views=views, parts=parts, chunk=chunk)
    barrier("teacher cache: begun")
    if files.read(layout.MANIFEST) is None:
        if files.read(layout.BEGUN) is None:
            raise _not_shared(files, layout.BEGUN)
        order = np.argsort(ids, kind="stable")
        there = set(files.names())
        mine = [
            (view, start)
            for i, (view, start) in enumerate(
                (view, start) for view in range(views) for start in range(0, len(ids), chunk)
            )
            if i % processes == process
        ]
        arrays = {name: files.open(name) for name in parts}
        lacking = [
            (view, start)
            for view, start in mine
            if not _is_whole(files, arrays, there, view, start, chunk)
        ]
        broken = {
            layout.chunk_name(name, array.rank, view, start // chunk)
            for name, array in arrays.items()
            for view, start in lacking
        }
        files.delete(*broken & there)  # the last chunk of a view is read before it is written
        turns = alike or (lambda rows: np.arange(len(rows)))
        _fill(arrays, lacking, order, ids, ask=ask, alike=turns, batch=batch, chunk=chunk)
    barrier("teacher cache: filled")
    if process == 0 and files.read(layout.MANIFEST) is None:
        _finish(files, bound, views=views, parts=parts, examples=len(ids), chunk=chunk)
    barrier("teacher cache: finished")


def _finished(files: storage.Folder, bound: Mapping[str, Any]) -> bool:
    """Whether this very cache is there, with all its files."""
    if files.read(layout.MANIFEST) is None:
        return False
    files.delete(layout.BEGUN)  # it was stopped between its last two moves, or in the last
    try:
        manifest = layout.read_manifest(files)
        layout.check_binding(files, manifest, bound)
        layout.check_files(files, manifest)
    except BadInput:
        return False
    return True


def _set_up(
    files: storage.Folder,
    bound: Mapping[str, Any],
    *,
    ids: UInt32[np.ndarray, " n"],
    views: int,
    parts: Mapping[str, storage.Part],
    chunk: int,
) -> None:
    """Empties the folder, unless it holds the beginning of this very cache."""

    def begun() -> bytes:
        checksums = files.checksums(layout.first_files_of(parts))
        return storage.spell({**bound, "chunk": chunk, "checksums": checksums})

    if files.read(layout.BEGUN) == begun():
        return
    files.empty()
    array = files.create("ids", storage.Part("uint32", ()), leading=ids.shape, chunk=ids.shape)
    array.write(np.sort(ids)).result()
    for name, part in parts.items():
        files.create(name, part, leading=(views, len(ids)), chunk=(1, chunk))
    files.write(layout.BEGUN, begun())  # last: what it stands for is there


def _is_whole(
    files: storage.Folder,
    arrays: Mapping[str, ts.TensorStore],
    there: set[str],
    view: int,
    start: int,
    chunk: int,
) -> bool:
    """Whether all parts of a chunk are there and as they were when they were written."""
    for name, array in arrays.items():
        if layout.chunk_name(name, array.rank, view, start // chunk) not in there:
            return False
        try:
            end = min(start + chunk, array.shape[1])
            array[view, start:end].read().result()  # its CRC-32C is looked at
        except ValueError:
            return False
    return True


def _fill(
    arrays: Mapping[str, ts.TensorStore],
    chunks: list[tuple[int, int]],
    order: Int[np.ndarray, " n"],
    ids: UInt32[np.ndarray, " n"],
    *,
    ask: Ask,
    alike: Alike,
    batch: int,
    chunk: int,
) -> None:
    """Asks for the chunks one after the other; reading, the device and the disk work at once."""
    written: list[ts.WriteFutures] = []
    with ThreadPoolExecutor(1) as reader:
        answers = _answers(reader, chunks, order, ask=ask, alike=alike, batch=batch, chunk=chunk)
        for view, start in chunks:
            rows = order[start : start + chunk]
            found = {name: np.empty((len(rows), *a.shape[2:]), a.dtype.numpy_dtype)
                     for name, a in arrays.items()}  # fmt: skip
            for _ in range(0, len(rows), batch):
                places, asked = next(answers)
                answer = asked.result()
                for name, slab in found.items():
                    slab[places] = np.asarray(answer[name])[: len(places)]
            _check_finite(found, ids[rows], view)
            for future in written:
                future.result()
            written = [
                array[view, start : start + len(rows)].write(found[name])
                for name, array in arrays.items()
            ]
    for future in written:
        future.result()


def _answers(
    reader: ThreadPoolExecutor,
    chunks: list[tuple[int, int]],
    order: Int[np.ndarray, " n"],
    *,
    ask: Ask,
    alike: Alike,
    batch: int,
    chunk: int,
) -> Iterator[tuple[Int[np.ndarray, " rows"], Future[Mapping[str, Array]]]]:
    """What the teacher says of each batch of each chunk, asked ahead, and the batch's places in it."""
    waiting: collections.deque[tuple[np.ndarray, Future[Mapping[str, Array]]]] = collections.deque()
    for view, start in chunks:
        rows = order[start : start + chunk]
        turns = alike(rows)
        for first in range(0, len(rows), batch):
            places = turns[first : first + batch]
            # One shape, one program.
            padded = np.pad(rows[places], (0, batch - len(places)), mode="edge")
            waiting.append((places, reader.submit(ask, padded, view)))
            if len(waiting) > _AHEAD:
                yield waiting.popleft()
    yield from waiting


def _check_finite(
    found: Mapping[str, np.ndarray], ids: UInt32[np.ndarray, " b"], view: int
) -> None:
    for name, values in found.items():
        if not np.issubdtype(values.dtype, np.floating):
            continue
        fine = np.isfinite(values)
        if name == "teacher_log_tail":
            fine |= np.isneginf(values)  # nothing is left over
        fine = fine.reshape(len(ids), -1).all(axis=1)
        if not fine.all():
            raise NotFinite(name, int(ids[np.argmin(fine)]), view, str(values.dtype))


def _finish(
    files: storage.Folder,
    bound: Mapping[str, Any],
    *,
    views: int,
    parts: Mapping[str, storage.Part],
    examples: int,
    chunk: int,
) -> None:
    """Deletes what does not belong there, and writes the manifest over what does."""
    files.delete_leftovers()
    wanted = layout.files_of(parts, views=views, examples=examples, chunk=chunk)
    files.delete(*(set(files.names()) - set(wanted) - {layout.BEGUN}))
    checksums = files.checksums(wanted)
    for name, found in checksums.items():
        if not found:
            raise _not_shared(files, name)
    files.write(layout.MANIFEST, storage.spell({**bound, "checksums": checksums}))
    files.delete(layout.BEGUN)


def _not_shared(files: storage.Folder, name: str) -> BadInput:
    return BadFile(
        f"teacher cache {files}",
        f"{name}, of another process, is not there",
        "all processes must share one --workdir",
    )
