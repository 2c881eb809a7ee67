"""What stands where in a cache, and what its manifest must say.

    FOLDER/manifest.json      what the signal is bound to, and a checksum of every file
    FOLDER/ids/               uint32 [examples], ascending
    FOLDER/PART/              [views, examples, ...], zarr3; a chunk is a run of ids of one view

`begun.json` stands in place of the manifest until everything is written. Nothing of a view is kept:
its key is a function of (seed, stream, view, id), see `kdjax.keys`.
"""

import itertools
import json
import math
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from kdjax.files import from_json
from kdjax.teacher.storage import Folder, Part, checksum, spell
from kdjax.types import BadFile, BadInput

FORMAT = 2
"""Raised when older files are to be refused."""

MANIFEST = "manifest.json"
BEGUN = "begun.json"


class _Absent:
    def __repr__(self) -> str:
        return "absent"


ABSENT = _Absent()
"""In place of a field that is not there, which `None` is not."""


def plain(value: Any) -> Any:
    """As it is after being written and read."""
    return json.loads(json.dumps(value, allow_nan=False))


def chunk_name(part: str, rank: int, view: int, block: int) -> str:
    """The file of one chunk of an array of this rank."""
    return "/".join([part, "c", str(view), str(block), *"0" * (rank - 2)])


def first_files_of(parts: Mapping[str, Part]) -> list[str]:
    """Those that are there before the first chunk is written."""
    return ["ids/c/0", "ids/zarr.json", *(f"{name}/zarr.json" for name in parts)]


def files_of(parts: Mapping[str, Part], *, views: int, examples: int, chunk: int) -> list[str]:
    """All files of a finished cache but the manifest."""
    found = first_files_of(parts)
    for name, part in parts.items():
        blocks = range(math.ceil(examples / chunk))
        rank = 2 + len(part.shape)
        for view, block in itertools.product(range(views), blocks):
            found.append(chunk_name(name, rank, view, block))
    return sorted(found)


def mend(files: Folder) -> str:
    """What to do about a cache that is refused."""
    return f"delete {files.owner} and run the cache stage again"


def refuse(files: Folder, fault: str) -> BadInput:
    """The one line about a cache that cannot be used."""
    return BadFile(f"teacher cache {files}", fault, mend(files))


def read_manifest(files: Folder) -> dict[str, Any]:
    """What the cache is bound to, and the `checksums` of its files.

    Raises:
      BadInput: there is none, or it cannot be read.
    """
    content = files.read(MANIFEST)
    if content is None:
        fault = f"no {MANIFEST}"
        if files.read(BEGUN) is not None:
            fault += ": its writing was stopped, and goes on when the cache stage is run again"
            raise BadFile(f"teacher cache {files}", fault)
        raise refuse(files, fault)
    try:
        manifest = dict(from_json(content))
        return {**manifest, "checksums": dict(manifest.get("checksums", {}))}
    except (ValueError, TypeError):
        raise refuse(files, f"{MANIFEST} cannot be read") from None


def differences(found: Any, expected: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """`(field, found, expected)` of each field of plain data that differs or is `ABSENT`."""
    if isinstance(found, Mapping) and isinstance(expected, Mapping):
        for name in sorted(found.keys() | expected.keys()):
            inner = f"{path}.{name}" if path else name
            yield from differences(found.get(name, ABSENT), expected.get(name, ABSENT), inner)
    elif isinstance(found, list) and isinstance(expected, list) and len(found) == len(expected):
        for i, (a, b) in enumerate(zip(found, expected, strict=True)):
            yield from differences(a, b, f"{path}[{i}]")
    elif found != expected or type(found) is not type(expected):
        yield path, found, expected


def check_binding(
    files: Folder,
    manifest: Mapping[str, Any],
    expected: Mapping[str, Any],
    *,
    accept: Collection[str] = (),
) -> None:
    """Raises `BadInput` at the first field that differs and is not one to `accept`."""
    expected = plain({"format": FORMAT, **expected})
    manifest = {name: value for name, value in manifest.items() if name != "checksums"}
    for field, found, wanted in differences(manifest, expected):
        if field not in accept:
            raise refuse(files, f"{field} is {found!r}, expected {wanted!r}")


def check_files(files: Folder, manifest: Mapping[str, Any]) -> None:
    """Raises `BadInput` at the first file that is missing, another one, or nobody's."""
    # The manifest itself too: the same data in another spelling is not what was written.
    expected = {MANIFEST: checksum(spell(manifest)), **manifest["checksums"]}
    there = set(files.names())
    for name in sorted(there | expected.keys()):
        if name not in there:
            raise refuse(files, f"{name} is missing, expected one of SHA-256 {expected[name]!r}")
        if name not in expected:
            raise refuse(files, f"{name} is there, expected no such file")
    for name, found in files.checksums(sorted(expected)).items():
        if found != expected[name]:
            raise refuse(files, f"{name} has SHA-256 {found!r}, expected {expected[name]!r}")
