"""An open cache: what a teacher said of every (id, view), for any number of students."""

import collections
import os
import threading
from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np
import tensorstore as ts
from etils import epath
from jaxtyping import Int, UInt32

from kdjax.teacher import layout, storage
from kdjax.types import BadInput

_SLABS = 3
"""Views in memory at once: one in use, one that ends as it begins, and the next."""


class TeacherCache:
    """A finished cache, read-only, one view's slab at a time.

    Attributes:
      ids: of the examples, ascending and unique, uint32.
      views: how many of each.
      parts: dtype and shape of what is kept of one of them, by name.
    """

    def __init__(self, files: storage.Folder, names: Collection[str]):
        self._files = files
        self._arrays = {name: files.open(name) for name in names}
        self.ids: np.ndarray = files.open("ids").read().result()
        self.parts = {
            name: storage.Part(array.dtype.name, tuple(array.shape[2:]))
            for name, array in self._arrays.items()
        }
        self.views = int(next(iter(self._arrays.values())).shape[0])
        self._slabs: collections.OrderedDict[int, dict[str, ts.Future]] = collections.OrderedDict()
        self._lock = threading.Lock()

    @classmethod
    def open(
        cls,
        folder: epath.PathLike,
        *,
        expected: Mapping[str, Any],
        accept: Collection[str] = (),
        owner: epath.PathLike | None = None,
    ) -> "TeacherCache":
        """Opens a cache that is bound to exactly what is `expected`, every byte of which is there.

        Args:
          folder: local or `gs://`.
          expected: the binding, derived from the teacher and the data at hand.
          accept: top-level fields of the manifest that may differ, such as `jax`.
          owner: see `Folder`: what a refusal says to delete.

        Raises:
          BadInput: there is none, a field of its manifest differs, or a file does. The line has the
            field, what was found, what was expected and the mend.
        """
        files = storage.Folder(os.fspath(folder), owner=owner)
        try:
            manifest = layout.read_manifest(files)
            layout.check_binding(files, manifest, expected, accept=accept)
            layout.check_files(files, manifest)
            names = {name.split("/")[0] for name in manifest["checksums"]}
            return cls(files, sorted(names - {"ids"}))
        except BadInput:
            raise
        except ValueError as error:  # of tensorstore, which says so of every fault of the storage
            raise layout.refuse(files, f"it cannot be read ({_reason(error)})") from error

    @property
    def bytes(self) -> int:
        """Of all views in memory."""
        return self.views * len(self.ids) * sum(part.bytes for part in self.parts.values())

    def rows(self, ids: UInt32[np.ndarray, " b"]) -> Int[np.ndarray, " b"]:
        """Where these ids stand.

        Raises:
          KeyError: an id has no signal here.
        """
        rows = np.searchsorted(self.ids, ids).clip(max=len(self.ids) - 1)
        missing = ids[self.ids[rows] != ids]
        if missing.size:
            raise KeyError(f"{missing.size} ids are not in the teacher cache, {missing[0]} first")
        return rows

    def slab(self, view: int) -> dict[str, np.ndarray]:
        """All examples of one view, [examples, ...] each; the next view is read meanwhile.

        Raises:
          BadInput: a chunk is missing, or not what was written.
          IndexError: there is no such view.
        """
        if not 0 <= view < self.views:
            raise IndexError(f"view {view} is not in 0 .. {self.views - 1}")
        with self._lock:
            for wanted in (view, (view + 1) % self.views):
                if wanted not in self._slabs:
                    self._slabs[wanted] = {
                        name: array[wanted].read() for name, array in self._arrays.items()
                    }
            self._slabs.move_to_end(view)
            self._slabs.move_to_end((view + 1) % self.views)
            while len(self._slabs) > _SLABS:
                self._slabs.popitem(last=False)
            futures = self._slabs[view]
        return {name: self._result(future, name, view) for name, future in futures.items()}

    def read(
        self, ids: UInt32[np.ndarray, " b"], views: UInt32[np.ndarray, " b"]
    ) -> dict[str, np.ndarray]:
        """What the teacher said of view `views[i]` of the example `ids[i]`, [b, ...] each.

        Safe to call from several threads. Cheap where the views of a batch are one or two, and
        those of the batches that follow are the same or the next.
        """
        return self._at(self.rows(ids), views)

    def reader(
        self, ids: UInt32[np.ndarray, " n"]
    ) -> Callable[[Int[np.ndarray, " b"], UInt32[np.ndarray, " b"]], dict[str, np.ndarray]]:
        """`read` by the rows of these ids, which are looked up once.

        Raises:
          KeyError: an id has no signal here.
        """
        where = self.rows(ids)
        return lambda rows, views: self._at(where[rows], views)

    def _at(
        self, rows: Int[np.ndarray, " b"], views: UInt32[np.ndarray, " b"]
    ) -> dict[str, np.ndarray]:
        if len(views) and (views == views[0]).all():
            return {name: slab[rows] for name, slab in self.slab(int(views[0])).items()}
        found = {
            name: np.empty((len(rows), *part.shape), part.dtype)
            for name, part in self.parts.items()
        }
        for view in np.unique(views):
            here = views == view
            for name, slab in self.slab(int(view)).items():
                found[name][here] = slab[rows[here]]
        return found

    def resident(self, ids: UInt32[np.ndarray, " n"]) -> dict[str, np.ndarray]:
        """All views of these examples, [views, n, ...] each, to be held on the device."""
        rows = self.rows(ids)
        found = {}
        for name, array in self._arrays.items():
            values = self._result(array.read(), name, None)
            in_order = len(rows) == len(self.ids) and bool((rows == np.arange(len(rows))).all())
            found[name] = values if in_order else values[:, rows]
        return found

    def _result(self, future: ts.Future, name: str, view: int | None) -> np.ndarray:
        try:
            return future.result()
        except ValueError as error:
            where = name if view is None else f"view {view} of {name}"
            raise layout.refuse(self._files, f"{where} cannot be read ({_reason(error)})") from None


def _reason(error: ValueError) -> str:
    return (str(error).strip() or "no reason given").splitlines()[0]
