"""Paths as users write them: local ones and `gs://`, under any name that a file system takes."""

import atexit
import functools
import glob
import importlib.util
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from etils import epath
from etils.epath.gpath import PosixGPath

from kdjax.types import BadInput

_LONGEST = 255
"""Bytes of one part of a local path: more no usual file system takes."""


@epath.register_path_cls
class LocalPath(PosixGPath):
    """A local path that is looked up as it is written: in `a[0]` nothing is a pattern.

    `epath` takes the whole of a path for a pattern, also where only its last part is one, and Orbax and
    TFDS look their files up so. A path made from this one is of its kind.
    """

    def glob(self, pattern: str) -> Iterator[Self]:
        """What is in this directory and matches `pattern`, in which alone `*`, `?` and `[` mean more."""
        for found in glob.iglob(self._PATH.join(glob.escape(self._path_str), pattern)):
            yield self._new(found)


def parse(text: str, *, field: str) -> epath.Path:
    """The path that a user wrote, `~` expanded.

    Args:
      text: a local path, or `gs://BUCKET/...`.
      field: that has it, for messages: `--workdir`, `config.data.data_dir`.

    Raises:
      BadInput: it is empty, no file system takes it, or it is of another scheme.
    """
    if not text:
        raise BadInput(field, "empty", "give a local path or gs://BUCKET/...")
    if "\0" in text:
        raise BadInput(field, f"{text!r} has a NUL in it", "no file system takes that")
    if scheme := re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", text):
        if scheme[1] != "gs":
            raise BadInput(
                field,
                f"{text}: {scheme[1]}:// is not supported",
                "give a local path or gs://BUCKET/...",
            )
        if not any(map(importlib.util.find_spec, ("gcsfs", "tensorflow"))):
            raise BadInput(field, f"{text}: gs:// needs a package: pip install gcsfs")
        return epath.Path(text)
    expanded = os.path.expanduser(text)
    if expanded.startswith("~") and not os.path.lexists(expanded.split(os.sep)[0]):
        raise BadInput(field, f"{text}: there is no such user", "write ./~ for a name with a ~")
    for part in expanded.split(os.sep):
        if len(os.fsencode(part)) > _LONGEST:
            raise BadInput(
                field,
                f"{part[:20]}... has {len(os.fsencode(part))} bytes",
                f"a file system takes {_LONGEST}",
            )
    return LocalPath(expanded)


def check_directory(path: epath.Path, *, field: str) -> None:
    """Raises `BadInput` where a file is in the place of a directory, or of one above it."""
    if not isinstance(path, LocalPath):
        return
    for place in (path, *path.absolute().parents):
        if place.is_dir():
            return
        if os.path.lexists(place):
            raise BadInput(field, f"{place} is a file", "name a directory")


def to_write(text: str, *, suffix: str, field: str) -> epath.Path:
    """The file that a user wants written: no file of another kind is written over by a slip.

    Args:
      text: a local path, or `gs://BUCKET/...`.
      suffix: in which its name must end, `.safetensors`.
      field: that has it, for messages.

    Raises:
      BadInput: its name ends otherwise, it is a directory, or there is none for it; or see `parse`.
    """
    path = parse(text, field=field)
    if path.suffix != suffix:
        better = path.parent / f"{path.stem or 'NAME'}{suffix}"
        raise BadInput(field, f"{text} is no name of {suffix[1:]}", f"give {better}")
    if isinstance(path, LocalPath):
        if path.is_dir():
            raise BadInput(field, f"{text} is a directory", "name a file")
        if not path.parent.is_dir():
            raise BadInput(
                field, f"there is no directory {path.parent}", "make it, or name another"
            )
    return path


def absolute(path: epath.PathLike) -> epath.Path:
    """The absolute path, for a library that reads a backslash as a `/`, as TensorStore does.

    Where there is one in a local path, this goes through a link to the directory of that name, which is
    made where there is none.
    """
    found = path if isinstance(path, epath.Path) else epath.Path(path)
    if isinstance(found, PosixGPath) and not str(found).startswith("gs://"):
        parts = LocalPath(found).absolute().parts
        last = max((i for i, part in enumerate(parts) if "\\" in part), default=None)
        if last is not None:
            return LocalPath(_link(os.path.join(*parts[: last + 1])), *parts[last + 1 :])
        return LocalPath(*parts)
    return found


@functools.cache
def _link(directory: str) -> str:
    os.makedirs(directory, exist_ok=True)
    links = _links()
    link = Path(links) / str(len(os.listdir(links)))
    link.symlink_to(directory, target_is_directory=True)
    return os.fspath(link)


@functools.cache
def _links() -> str:
    """Of this process alone, and gone with it."""
    folder = tempfile.mkdtemp(prefix="kdjax-links-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
