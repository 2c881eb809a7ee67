"""Files that are whole or absent, what a folder or a text of JSON holds, what faults of storage mean."""

import contextlib
import errno
import hashlib
import json
import os
import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from etils import epath

from kdjax.types import StorageFailed

PART = ".part"
"""Ends the hidden name under which a file is written before it is moved into its place."""

_BLOCK_BYTES = 2**20
_AGAIN = "then run the same command again: what is done stays done"
_MEANINGS = {
    errno.ENOSPC: ("no space is left there", f"make room, {_AGAIN}"),
    errno.EDQUOT: ("the disk quota is used up", f"make room, {_AGAIN}"),
    errno.EFBIG: ("the file would be larger than is allowed", f"raise the limit, {_AGAIN}"),
    errno.EROFS: ("it can be read only", f"make it writable, {_AGAIN}"),
    errno.EACCES: ("permission denied", f"give this user the right, {_AGAIN}"),
    errno.EPERM: ("it is not permitted", f"give this user the right, {_AGAIN}"),
    errno.ENOENT: ("it is not there, or was taken away", f"put it back, {_AGAIN}"),
    errno.ENOTDIR: ("a file is where a directory must be", f"move it away, {_AGAIN}"),
    errno.EISDIR: ("a directory is where a file must be", f"move it away, {_AGAIN}"),
    errno.EEXIST: ("something else is there", f"move it away, {_AGAIN}"),
    errno.ENOTEMPTY: ("something else is there", f"move it away, {_AGAIN}"),
    errno.ELOOP: ("symbolic links lead in a circle", f"remove them, {_AGAIN}"),
    errno.ENAMETOOLONG: ("the name is too long", "name a shorter --workdir, or a shorter stage"),
    errno.EIO: ("the disk cannot be read or written", f"look at the disk, {_AGAIN}"),
    errno.ESTALE: ("the network file system has lost it", f"mount it anew, {_AGAIN}"),
    errno.EMFILE: ("too many files are open", f"raise the limit (ulimit -n), {_AGAIN}"),
    errno.ENFILE: ("too many files are open", f"raise the limit, {_AGAIN}"),
}

_STATUS = re.compile(r"(NOT_FOUND|FAILED_PRECONDITION|PERMISSION_DENIED|UNAVAILABLE|DATA_LOSS): ")
"""What tensorstore begins with where no number of the operating system is behind it."""


def is_local(path: epath.PathLike) -> bool:
    """Whether a path is of a file system, and not of a bucket."""
    return "://" not in os.fspath(path)


def _number(error: BaseException) -> int | None:
    """The `errno` of an error or of what it came from; tensorstore has it in its text alone."""
    at: BaseException | None = error
    while at is not None:
        if isinstance(at, OSError) and at.errno is not None:
            return at.errno
        if found := re.search(r"(?:\[OS error |\[Errno |os_error_code=')(\d+)", str(at)):
            return int(found[1])
        at = at.__cause__
    return None


def _place(error: BaseException, path: epath.PathLike) -> str:
    """The path that an error names; the one at hand where it names none, or one that is only ours."""
    at: BaseException | None = error
    while at is not None:
        names = [getattr(at, "filename2", None), getattr(at, "filename", None)]
        names += re.findall(r'"(/[^"]+)"', str(at))
        for name in names:
            if isinstance(name, bytes):
                name = os.fsdecode(name)
            if isinstance(name, str | os.PathLike) and name and not os.fspath(name).endswith(PART):
                return os.fspath(name)
        at = at.__cause__
    return os.fspath(path)


def meaning(error: BaseException) -> tuple[str, str] | None:
    """What a fault of the storage means and what to do; None for an error of another kind."""
    number = _number(error)
    if number in _MEANINGS:
        return _MEANINGS[number]
    if isinstance(error, OSError) or number is not None:
        reason = os.strerror(number) if number is not None else _first_line(error)
        return reason[:1].lower() + reason[1:], f"look at the storage, {_AGAIN}"
    if isinstance(error, ValueError) and _STATUS.match(_first_line(error)):
        return _first_line(error), f"look at it, {_AGAIN}"
    return None


def described(error: BaseException, path: epath.PathLike) -> str | None:
    """One line about a fault of the storage at `path`; None for an error of another kind."""
    found = meaning(error)
    if found is None:
        return None
    fault, mend = found
    place = _place(error, path)
    if _number(error) == errno.ENOTDIR:
        place = blocking(place)
    return f"{place}: {fault}; {mend}"


def blocking(path: epath.PathLike) -> str:
    """Of a path that leads through a file: that file."""
    at = os.fspath(path)
    while not os.path.lexists(at) and os.path.dirname(at) != at:
        at = os.path.dirname(at)
    return at


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


@contextlib.contextmanager
def storing(path: epath.PathLike) -> Iterator[None]:
    """What is done at `path` within: a fault of the storage becomes one line.

    Raises:
      StorageFailed: in place of an error of the operating system, also one that a library tells of
        in words. Other errors pass.
    """
    try:
        yield
    except StorageFailed:
        raise
    except Exception as error:
        line = described(error, path)
        if line is None:
            raise
        raise StorageFailed(line) from error


def write(path: epath.PathLike, content: bytes) -> None:
    """Writes a file in one move: it is there whole, as it was before, or not at all.

    On a file system it is also on the disk when this returns, so that what is written after it never
    outlives it. A bucket has no half-written objects.

    Raises:
      StorageFailed: it cannot be written; nothing is left beside it.
    """
    path = epath.Path(path)
    with storing(path):
        if not is_local(path):
            path.write_bytes(content)
            return
        # Of a length of its own: that of the name may be the longest there is.
        beside = Path(path.parent) / f".{uuid.uuid4().hex}{PART}"
        try:
            with open(beside, "xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(beside, path)
            _sync_folder(path.parent)
        finally:
            with contextlib.suppress(OSError):
                beside.unlink(missing_ok=True)


def from_json(text: str | bytes) -> Any:
    """What a text of JSON says.

    Raises:
      ValueError: it is no JSON, no Unicode, or deeper than Python can follow.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("too many brackets within one another") from None


def _sync_folder(folder: epath.PathLike) -> None:
    """That a file has its name is on the disk; not every file system can be asked for that."""
    with contextlib.suppress(OSError):
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def sync(path: epath.PathLike) -> None:
    """Waits until a file that someone else has written is on the disk."""
    if not is_local(path):
        return
    with storing(path), open(path, "rb") as file:
        os.fsync(file.fileno())


def sha256(path: epath.PathLike) -> str:
    """Of the content of a file, read in blocks."""
    digest = hashlib.sha256()
    with epath.Path(path).open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def size(path: epath.PathLike) -> int | None:
    """Bytes of a file; None where there is none.

    Raises:
      OSError: something else is there, or it cannot be looked at.
    """
    try:
        if is_local(path):  # etils also asks for the owner's name, which not every machine knows
            found = os.stat(path)
            is_folder, length = os.path.isdir(path), found.st_size
        else:
            found = epath.Path(path).stat()
            is_folder, length = found.is_directory, found.length
    except (FileNotFoundError, NotADirectoryError):
        return None
    if is_folder:
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    return length


def names(folder: epath.PathLike) -> list[str]:
    """The files below a folder, sorted, as `a/b`; a link to a folder is not followed."""
    folder = epath.Path(folder)
    if is_local(folder):
        found = []
        for here, folders, inner in os.walk(folder, onerror=_raise):
            # A link to a folder is something that is there, and nothing that is gone into.
            linked = [name for name in folders if os.path.islink(os.path.join(here, name))]
            relative = os.path.relpath(here, folder)
            found += [name if relative == "." else f"{relative}/{name}" for name in inner + linked]
        return sorted(found)
    pending, found = [("", folder)], []
    while pending:
        prefix, here = pending.pop()
        for path in here.iterdir():
            if path.is_dir():
                pending.append((f"{prefix}{path.name}/", path))
            else:
                found.append(f"{prefix}{path.name}")
    return sorted(found)


def _raise(error: OSError) -> None:
    raise error
