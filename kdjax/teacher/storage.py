"""Chunked arrays and small files in one folder, local or in a bucket, through tensorstore."""

import hashlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from concurrent import futures
from pathlib import Path
from typing import Any, NamedTuple
from urllib import parse

import tensorstore as ts
from etils import epath

from kdjax import paths

_CHUNK_BYTES = 4 * 2**20
_THREADS = 8
_CONTEXT = ts.Context()


def spell(value: Any) -> bytes:
    """Plain data as text: one spelling of each value."""
    return json.dumps(value, indent=1, sort_keys=True, allow_nan=False).encode()


def checksum(content: bytes | None) -> str:
    """SHA-256; an empty text of no file."""
    return "" if content is None else hashlib.sha256(content).hexdigest()


class Part(NamedTuple):
    """One array of what a teacher says: dtype and shape for one view of one example."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """Of one view of one example, before compression."""
        return int(ts.dtype(self.dtype).numpy_dtype.itemsize) * math.prod(self.shape)


class Folder:
    """The files under a path: `/data/cache`, `gs://bucket/cache`, `memory://cache`.

    A file that is there is whole: local files are written beside their place and moved into it, and
    a bucket has no half-written objects.

    Attributes:
      path: as messages name it.
      owner: what is to be deleted to have it all made again: the folder of the stage that it is in, or
        the path itself.
    """

    def __init__(self, path: epath.PathLike, *, owner: epath.PathLike | None = None):
        self.path = os.fspath(path)
        if "://" in self.path:
            scheme, rest = self.path.split("://", 1)
        else:
            self.path = str(Path(self.path).absolute())
            scheme, rest = "file", os.fspath(paths.absolute(self.path))
        self.owner = self.path if owner is None else os.fspath(owner)
        self.url = f"{scheme}://{parse.quote(rest.rstrip('/'))}/"
        self._store = ts.KvStore.open(self.url, context=_CONTEXT).result()

    def __str__(self) -> str:
        return self.path

    def names(self) -> list[str]:
        """Of all files, sorted."""
        return sorted(name.decode() for name in self._store.list().result())

    def read(self, name: str) -> bytes | None:
        """The content of a file, None where there is none."""
        found = self._store.read(name).result()
        return bytes(found.value) if found.state == "value" else None

    def write(self, name: str, content: bytes) -> None:
        """Writes a file in one move."""
        self._store.write(name, content).result()

    def delete(self, *names: str) -> None:
        """Deletes files; those that are not there are no fault."""
        for name in names:
            self._store.write(name, None).result()

    def empty(self) -> None:
        """Deletes everything."""
        self._store.delete_range(ts.KvStore.KeyRange()).result()

    def delete_leftovers(self) -> None:
        """Deletes what a killed process had begun to write and never moved into place."""
        if self.url.startswith("file://"):
            for path in Path(self.path).rglob("*.__lock"):
                path.unlink(missing_ok=True)

    def checksums(self, names: Sequence[str]) -> dict[str, str]:
        """Of each file, by its name."""
        with futures.ThreadPoolExecutor(_THREADS) as pool:
            found = pool.map(lambda name: checksum(self.read(name)), names)
            return dict(zip(names, found, strict=True))

    def create(self, name: str, part: Part, *, leading: tuple[int, ...], chunk: tuple[int, ...]):
        """A new array [*leading, *part.shape] in chunks of [*chunk, *part.shape].

        Chunks are compressed without loss, and each carries a CRC-32C of its own.
        """
        metadata = {
            "shape": [*leading, *part.shape],
            "data_type": part.dtype,
            "chunk_grid": {
                "name": "regular",
                "configuration": {"chunk_shape": [*chunk, *part.shape]},
            },
            "codecs": [
                {"name": "bytes", "configuration": {"endian": "little"}},
                {"name": "zstd", "configuration": {"level": 1}},
                {"name": "crc32c"},
            ],
        }
        return self._array(name, {"metadata": metadata, "create": True, "delete_existing": True})

    def open(self, name: str) -> ts.TensorStore:
        """An array that is there; a chunk that is not is an error, and not zeros."""
        return self._array(name, {"open": True})

    def _array(self, name: str, spec: Mapping[str, Any]) -> ts.TensorStore:
        return ts.open(
            {
                "driver": "zarr3",
                "kvstore": f"{self.url}{name}/",
                "store_data_equal_to_fill_value": True,
                "fill_missing_data_reads": False,
                **spec,
            },
            context=_CONTEXT,
        ).result()


def chunk_examples(
    examples: int, parts: Mapping[str, Part], *, chunk_bytes: int = _CHUNK_BYTES
) -> int:
    """Examples of a chunk: as even a share as there is, the largest part in about `chunk_bytes`."""
    most = max(1, chunk_bytes // max(part.bytes for part in parts.values()))
    return math.ceil(examples / math.ceil(examples / most))
