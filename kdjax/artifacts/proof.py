"""Whether what a finished stage left is whole: its manifest names every file, and vouches for itself."""

import errno
import hashlib
import itertools
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from etils import epath

from kdjax import files
from kdjax.files import from_json
from kdjax.types import BadFile, BadInput

MANIFEST = "manifest.json"
CHECKPOINTS = "checkpoints"
"""Folder of the states of a run under way: no part of what a finished one leaves."""

SMALL_BYTES = 2**18
"""Files up to this size are hashed each time a run begins; larger ones by `kdjax verify`."""

_NAME = re.compile(r"(?P<stage>.+)-seed(?P<seed>-?\d+)-(?P<mark>[0-9a-f]{8})")
_FILES, _SEAL = "files", "sha256"
REPLACING = "replacing"
"""In a manifest, while files give way to others: what these are, as `files` has it of those before."""
_THREADS = 16
_NAMED = 3


def folder_of(workdir: epath.Path, stage: str, seed: int, fingerprint: str) -> epath.Path:
    """Where a stage of a seed leaves what it makes."""
    return workdir / "stages" / f"{stage}-seed{seed}-{fingerprint[:8]}"


def find(workdir: epath.Path, stage: str, fingerprint: str) -> epath.Path | None:
    """What a stage has left, for whichever seed; None if it is not there, or not finished."""
    for folder in (workdir / "stages").iterdir():
        parts = folder_name(folder.name)
        if parts is not None and parts[::2] == (stage, fingerprint[:8]):
            return folder if (folder / MANIFEST).exists() else None
    return None


def folder_name(name: str) -> tuple[str, int, str] | None:
    """`(stage, seed, first digits of the fingerprint)` of such a folder; None for another one."""
    found = _NAME.fullmatch(name)
    return (found["stage"], int(found["seed"]), found["mark"]) if found else None


def lock_of(folder: epath.Path) -> epath.Path:
    """Who is at a stage holds this; beside its folder, which may be deleted and made again."""
    return folder.parent / f".{folder.name}.lock"


def spell(manifest: Mapping[str, Any]) -> bytes:
    """A manifest as text, with the hash of all else that it says.

    Raises:
      ValueError: a figure is not finite.
    """
    plain = json.loads(json.dumps({**manifest}, allow_nan=False))
    plain.pop(_SEAL, None)
    return json.dumps({**plain, _SEAL: _seal(plain)}, indent=1).encode()


def _seal(manifest: Mapping[str, Any]) -> str:
    plain = {name: value for name, value in manifest.items() if name != _SEAL}
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def inventory(folder: epath.Path, known: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """`{file: {"bytes": size, "sha256": hash}}` of all that a stage leaves in its folder.

    What killed runs left half written is deleted first, and what is listed is on the disk.

    Args:
      folder: of the stage.
      known: hashes that have just been taken, by file; they are not taken twice.
    """
    _delete_leftovers(folder)
    listed = [name for name in files.names(folder) if _belongs(name)]

    def entry(name: str) -> dict[str, Any]:
        files.sync(folder / name)
        content = known.get(name) or files.sha256(folder / name)
        return {"bytes": files.size(folder / name), "sha256": content}

    return dict(zip(listed, _side_by_side(entry, listed), strict=True))


def _belongs(name: str) -> bool:
    return name != MANIFEST and not name.startswith(f"{CHECKPOINTS}/")


def replacing(
    folder: epath.Path, manifest: Mapping[str, Any], others: epath.Path
) -> dict[str, Any]:
    """What a manifest says while some of its files give way to others, one by one.

    Each may be the one before or the other one, and the folder is whole. Of files that were to give way
    before, the one that is there counts as the one before.

    Args:
      folder: of the stage.
      manifest: as `read` gives it.
      others: a folder of the other files, which have the names of those.
    """
    listed: dict[str, Any] = {**manifest[_FILES]}
    for name, entry in manifest.get(REPLACING, {}).items():
        size = files.size(folder / name)
        if size == entry["bytes"] and files.sha256(folder / name) == entry["sha256"]:
            listed[name] = entry
    return {**manifest, _FILES: listed, REPLACING: inventory(others, known={})}


def is_leftover(name: str) -> bool:
    """Whether a name is one under which a run writes what it has not finished."""
    parts = name.split("/")
    return any(
        part.endswith((files.PART, ".__lock")) or ".orbax-checkpoint-tmp" in part for part in parts
    )


def _delete_leftovers(folder: epath.Path) -> None:
    for path in folder.iterdir():
        if path.name != CHECKPOINTS and is_leftover(path.name):
            shutil.rmtree(path) if files.is_local(path) and path.is_dir() else path.unlink()


def _side_by_side(call: Any, names: Sequence[str]) -> list[Any]:
    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(call, names))


class Damaged(BadFile):
    """A finished stage is not whole any more; what to do is left to the user, who may have a copy.

    Its fault is what was found and what was expected.
    """

    def __init__(self, folder: epath.PathLike, fault: str):
        super().__init__(
            folder, fault, f"delete {os.fspath(folder)} and run the same command again"
        )


def _unreadable(folder: epath.Path, name: str, error: OSError) -> BadInput:
    """Something else stands where a file was, or the storage does not give it."""
    fault, what_to_do = files.meaning(error) or (str(error), "")
    if error.errno in (errno.EISDIR, errno.ELOOP, errno.ENOTDIR):
        return Damaged(folder, f"{name}: {fault}")
    return BadFile(folder, f"{name}: {fault}", what_to_do)


def read(folder: epath.Path) -> dict[str, Any] | None:
    """The manifest of a stage; None where it has none, and so is not finished.

    Raises:
      BadInput: it cannot be read, or is not as it was written.
    """
    try:
        content = (folder / MANIFEST).read_bytes()
    except FileNotFoundError:
        return None
    except NotADirectoryError as error:
        if files.blocking(folder) != os.fspath(folder):
            raise BadInput("", str(files.described(error, folder))) from None
        raise Damaged(folder, "a file is where the folder of a stage must be") from None
    except OSError as error:
        raise _unreadable(folder, MANIFEST, error) from None
    if not content:
        raise Damaged(folder, f"{MANIFEST} is empty")
    try:
        manifest = from_json(content)
    except ValueError:
        raise Damaged(folder, f"{MANIFEST} is no JSON, or a part of one") from None
    if not isinstance(manifest, dict):
        raise Damaged(folder, f"{MANIFEST} is no JSON object")
    if not isinstance(manifest.get(_FILES), dict) or _SEAL not in manifest:
        raise Damaged(
            folder, f"{MANIFEST} lists no files, as those of older versions: it proves nothing"
        )
    if manifest[_SEAL] != _seal(manifest):
        raise Damaged(folder, f"{MANIFEST} is not what was written: its own SHA-256 differs")
    return manifest


def faults(folder: epath.Path, manifest: Mapping[str, Any], *, full: bool) -> list[str]:
    """What is wrong with the files that a manifest lists, a few words each.

    Args:
      folder: of the stage.
      manifest: as `read` gives it.
      full: hash every file, and not the small ones alone.

    Raises:
      BadInput: the storage does not give a file, or something else stands in its place.
    """
    listed: dict[str, dict[str, Any]] = manifest[_FILES]
    others: dict[str, dict[str, Any]] = manifest.get(REPLACING, {})

    def fault(name: str) -> str | None:
        wanted, path = listed[name], folder / name
        taken = [wanted, *([others[name]] if name in others else [])]
        try:
            size = files.size(path)
            if size is None:
                return f"{name} is missing, expected {wanted['bytes']} bytes"
            taken = [entry for entry in taken if entry["bytes"] == size]
            if not taken:
                return f"{name} has {size} bytes, expected {wanted['bytes']}"
            if full or size <= SMALL_BYTES:
                found = files.sha256(path)
                if all(found != entry["sha256"] for entry in taken):
                    return f"{name} has SHA-256 {found[:16]}, expected {wanted['sha256'][:16]}"
        except OSError as error:
            raise _unreadable(folder, name, error) from None
        return None

    return [found for found in _side_by_side(fault, list(listed)) if found is not None]


def is_emptied(folder: epath.Path, manifest: Mapping[str, Any]) -> bool:
    """Whether every file of a stage is gone, as after a mend, and only its manifest is left."""
    listed = manifest[_FILES]

    def is_there(path: epath.Path) -> bool:
        return os.path.lexists(path) if files.is_local(path) else path.exists()

    return bool(listed) and not any(is_there(folder / name) for name in listed)


def prove(
    folder: epath.Path, *, fingerprint: str | None = None, full: bool = False
) -> dict[str, Any] | None:
    """The manifest of a stage that is finished and whole; None where there is still something to do.

    Of a stage whose files are all gone there is nothing left to lose: it is to be run again. Whatever
    else is missing or otherwise is for the user to decide about: it may have taken days to make, and
    there may be a copy of it elsewhere.

    Args:
      folder: of the stage.
      fingerprint: that it must be of; None for any.
      full: hash every file, and not the small ones alone.

    Raises:
      BadInput: it is not whole. The line has the folder, the file, what was found, what was expected
        and the mend.
    """
    manifest = read(folder)
    if manifest is None:
        return None
    found = manifest.get("fingerprint")
    if fingerprint is not None and found != fingerprint:
        raise Damaged(folder, f"{MANIFEST} is of fingerprint {found!r}, expected {fingerprint!r}")
    if is_emptied(folder, manifest):
        return None
    if wrong := faults(folder, manifest, full=full):
        raise Damaged(folder, in_words(wrong))
    return manifest


def in_words(wrong: Sequence[str]) -> str:
    """The first few faults, and how many more there are."""
    more = f" and {len(wrong) - _NAMED} more" if len(wrong) > _NAMED else ""
    return ", ".join(itertools.islice(wrong, _NAMED)) + more


def foreign(folder: epath.Path, manifest: Mapping[str, Any]) -> Iterator[str]:
    """Files in a stage's folder that its manifest does not list."""
    for name in files.names(folder):
        if _belongs(name) and name not in manifest[_FILES]:
            yield name
