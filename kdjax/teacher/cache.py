"""The teacher's logits of every (id, view): written once, read by any number of students.

    FOLDER/manifest.json      what the logits are bound to, and a checksum of every file
    FOLDER/ids/               uint32 [examples], ascending
    FOLDER/logits/            [views, examples, classes], zarr3

Nothing of a view is stored: its key is a function of (seed, stream, view, id), see `kdjax.keys`.
"""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorstore as ts
from etils import epath
from jaxtyping import Float, Int, UInt32

from kdjax.types import BadInput

FORMAT = 1
"""Raised when older files are to be refused."""

_MANIFEST = "manifest.json"
_CHUNK_EXAMPLES = 4096


def write(
    folder: epath.PathLike,
    *,
    ids: UInt32[np.ndarray, " n"],
    views: int,
    classes: int,
    dtype: str,
    logits_of: Callable[[Int[np.ndarray, " b"], int], Float[np.ndarray, "b classes"]],
    batch: int,
    binding: Mapping[str, Any],
) -> None:
    """Asks the teacher for every view of every example and writes its logits.

    Args:
      folder: emptied first; the manifest is written last, so that a folder that has one is whole.
      ids: of the examples, unique.
      views: of each example.
      classes: of the teacher.
      dtype: stored, `float16` or `float32`.
      logits_of: `(rows of ids, view) -> logits`; the last call may have fewer rows.
      batch: rows of a call.
      binding: plain data that says what the logits are of; a reader must expect the same.

    Raises:
      ValueError: a logit is not finite in the stored dtype; the line has the id and the view.
    """
    folder = epath.Path(folder)
    if folder.exists():
        folder.rmtree()
    order = np.argsort(ids, kind="stable")
    shape = (views, len(ids), classes)
    chunk = (1, min(len(ids), _CHUNK_EXAMPLES), classes)
    logits = _array(folder / "logits", dtype, shape, chunk)
    slab = np.empty(shape[1:], dtype)
    for view in range(views):
        for start in range(0, len(ids), batch):
            rows = order[start : start + batch]
            with np.errstate(over="ignore"):  # said below, by id
                slab[start : start + len(rows)] = logits_of(rows, view)
        if not np.isfinite(slab).all():
            row = int(np.argmin(np.isfinite(slab).all(axis=-1)))
            raise ValueError(
                f"the teacher's logits of id {ids[order[row]]}, view {view} are not finite in "
                f"{dtype}; store them as float32, or look at the teacher"
            )
        logits[view] = slab
    _array(folder / "ids", "uint32", (len(ids),), (len(ids),))[...] = ids[order]
    manifest = {"format": FORMAT, **binding, "checksums": _checksums(folder)}
    beside = folder / (_MANIFEST + ".tmp")
    beside.write_text(json.dumps(manifest, indent=1, sort_keys=True))
    beside.replace(folder / _MANIFEST)


@dataclasses.dataclass(frozen=True)
class TeacherCache:
    """An open cache, whole in memory, read-only.

    Attributes:
      ids: ascending and unique.
      logits: as stored.
    """

    ids: UInt32[np.ndarray, " n"]
    logits: Float[np.ndarray, "views n classes"]

    @classmethod
    def open(cls, folder: epath.PathLike, *, expected: Mapping[str, Any]) -> "TeacherCache":
        """Reads a cache that is bound to exactly what is `expected`.

        Raises:
          BadInput: there is none, a field of its manifest differs, or a file does. The line has the
            field, what was found, what was expected and the mend.
        """
        folder = epath.Path(folder)
        mend = f"delete {folder} and run the cache stage again"
        if not (folder / _MANIFEST).exists():
            raise BadInput(f"teacher cache {folder}: no {_MANIFEST}; {mend}")
        try:
            manifest = dict(json.loads((folder / _MANIFEST).read_text()))
            checksums = dict(manifest.pop("checksums", {}))
        except (ValueError, TypeError):
            raise BadInput(f"teacher cache {folder}: {_MANIFEST} cannot be read; {mend}") from None
        expected = json.loads(json.dumps({"format": FORMAT, **expected}))  # as it was written
        for field in sorted(manifest.keys() | expected.keys()):
            found, wanted = manifest.get(field), expected.get(field)
            if found != wanted:
                raise BadInput(
                    f"teacher cache {folder}: {field} is {found!r}, expected {wanted!r}; {mend}"
                )
        present = _checksums(folder)
        for file in sorted(checksums.keys() | present.keys()):
            if checksums.get(file) != present.get(file):
                fault = "missing" if file not in present else "not what was written"
                raise BadInput(f"teacher cache {folder}: {file} is {fault}; {mend}")
        return cls(ids=_open(folder / "ids"), logits=_open(folder / "logits"))

    @property
    def views(self) -> int:
        """How many views of each example."""
        return len(self.logits)

    def rows(self, ids: UInt32[np.ndarray, " b"]) -> Int[np.ndarray, " b"]:
        """Where these ids stand.

        Raises:
          KeyError: an id has no logits here.
        """
        rows = np.searchsorted(self.ids, ids).clip(max=len(self.ids) - 1)
        missing = ids[self.ids[rows] != ids]
        if missing.size:
            raise KeyError(f"{missing.size} ids are not in the teacher cache, {missing[0]} first")
        return rows

    def read(
        self, ids: UInt32[np.ndarray, " b"], views: UInt32[np.ndarray, " b"]
    ) -> Float[np.ndarray, "b classes"]:
        """The logits of view `views[i]` of the example `ids[i]`."""
        return self.logits[views, self.rows(ids)]


def _array(folder: epath.Path, dtype: str, shape, chunk) -> ts.TensorStore:
    return ts.open(
        {
            "driver": "zarr3",
            "kvstore": _kvstore(folder),
            "metadata": {
                "shape": list(shape),
                "data_type": dtype,
                "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(chunk)}},
            },
        },
        create=True,
        delete_existing=True,
    ).result()


def _open(folder: epath.Path) -> np.ndarray:
    return ts.open({"driver": "zarr3", "kvstore": _kvstore(folder)}).result().read().result()


def _kvstore(folder: epath.Path) -> str:
    path = str(folder)
    return path if "://" in path else f"file://{folder.absolute()}/"


def _checksums(folder: epath.Path) -> dict[str, str]:
    """SHA-256 of every file but the manifest, by its path in the folder."""
    found = {}
    pending = [folder]
    while pending:
        for path in pending.pop().iterdir():
            if path.is_dir():
                pending.append(path)
            elif path.parent != folder:
                name = str(path.relative_to(folder))
                found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found
