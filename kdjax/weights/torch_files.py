"""Files of `torch.save` as arrays, without torch: the zip of today, the stream of before 1.6, the tar.

Sizes are held against the bytes that are there before anything of that size is made.
"""

import io
import mmap
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

from kdjax import files
from kdjax.types import BadFile
from kdjax.weights import torch_tar
from kdjax.weights.torch_tensors import KNOWN, Storage, Tensor, persistent
from kdjax.weights.unpickling import Refused, unpickled

_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
_MOST_TIMES = 16
"""Tied weights are stored once: all arrays together have at most so many times the bytes of the file."""


class _Mapped(mmap.mmap):
    """The content of a file as one; a read makes nothing larger than what is left, whatever is asked."""

    def seekable(self) -> bool:
        """Always. mmap says so itself since Python 3.13."""
        return True


def read(path: Path) -> Any:
    """What `torch.save` was given: dicts, lists and plain values, with a `Tensor` for each tensor.

    Args:
      path: of a local file.

    Raises:
      BadFile: the file is none of `torch.save`, damaged, or of more than arrays.
    """
    with _opened(path) as content:
        try:
            if content[:4] == b"PK\x03\x04":
                found = _of_zip(content)
            elif content[257:262] == b"ustar":
                found = torch_tar.read(content)
            elif content[:1] == b"\x80":
                found = _of_stream(content)
            else:
                raise Refused(_other(content))
            _check_together(found, len(content))
        except Refused as error:
            raise BadFile(path, str(error), _mend(str(error))) from None
    return found


@contextmanager
def _opened(path: Path) -> Iterator[_Mapped]:
    """The content of a file, mapped; storages that are read from it keep it open."""
    try:
        there, is_file = path.exists(), path.is_file()
    except OSError as error:  # a name that no file can have
        fault, _ = files.meaning(error) or (str(error), "")
        raise BadFile(path, fault, "name a file") from None
    if not there:
        raise BadFile(path, "no such file")
    if not is_file:
        raise BadFile(path, "it is no file")
    with path.open("rb") as file:
        if not path.stat().st_size:
            raise BadFile(path, "it is empty", "download it again")
        yield _Mapped(file.fileno(), 0, access=mmap.ACCESS_READ)


def _mend(fault: str) -> str:
    if "asks for" in fault or "calls" in fault:
        return (
            "where you trust it, load it with torch and save its state_dict() alone: "
            "torch.save(model.state_dict(), FILE)"
        )
    return "" if ";" in fault else "download it again, or save it again with torch.save"


def _other(content: Any) -> str:
    """What a file is that torch.save has not written."""
    if content[8:9] == b"{" and int.from_bytes(content[:8], "little") < len(content):
        return "it is a file of safetensors already; use it as it is"
    known = {
        b"version https://git-lfs": "a pointer of Git LFS, and not the file; fetch that: git lfs pull",
        b"\x89HDF": "a file of HDF5; save the weights as safetensors",
        b"\x1f\x8b": "compressed by gzip; unpack it first: gunzip",
        b"\x93NUMPY": "a file of NumPy; save the weights as safetensors",
    }
    for begins, what in known.items():
        if content[: len(begins)] == begins:
            return f"it is {what}"
    return f"torch.save has not written it: it begins with {bytes(content[:8])!r}"


def _check_together(found: Any, size: int) -> None:
    """Few bytes may be many arrays: views that repeat an entry, or thousands of names for one."""
    together = sum(tensor.nbytes for tensor in _tensors(found))
    if together > _MOST_TIMES * size + 2**20:
        raise Refused(
            f"its tensors have {together:,} bytes together, more than {_MOST_TIMES} times the file"
        )


def _tensors(found: Any) -> Iterator[Tensor]:
    """All of them, each dict and list looked at once however often it is there."""
    pending, seen = [found], set()
    while pending:
        value = pending.pop()
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, dict | list | tuple) and id(value) not in seen:
            seen.add(id(value))
            pending += value.values() if isinstance(value, dict) else value


def _of_zip(content: _Mapped) -> Any:
    """Since torch 1.6: `NAME/data.pkl`, and each storage in `NAME/data/KEY`, none compressed."""
    try:
        with zipfile.ZipFile(cast(IO[bytes], content)) as archive:
            members = _members(archive, len(content))
            roots = [name[:-8] for name in members if name.endswith("data.pkl")]
            if len(roots) != 1:
                raise Refused("it is a zip, and has no data.pkl, as torch.save writes one")
            root = roots[0]
            order = members.get(f"{root}byteorder")
            if order is not None and archive.read(order)[:16] != b"little":
                raise Refused(
                    "its numbers are big-endian; save it again on a little-endian machine"
                )
            storages: dict[str, Storage] = {}
            pickle = io.BytesIO(archive.read(members[f"{root}data.pkl"]))
            found = unpickled(pickle, known=KNOWN, persistent=persistent(storages))
            for key, storage in storages.items():
                member = members.get(f"{root}data/{key}")
                if member is None:
                    raise Refused(f"it has no data/{key[:50]!r}, in which there are tensors")
                storage.fill(archive.read(member), f"data/{key[:50]!r}")
    except Refused:
        raise
    except (zipfile.BadZipFile, ValueError, EOFError, RuntimeError, OSError):
        raise Refused("it is a damaged zip, or cut short") from None
    return found


def _members(archive: zipfile.ZipFile, size: int) -> dict[str, zipfile.ZipInfo]:
    """Those of a zip by name, none larger than it says, and together no larger than the file."""
    found = {member.filename: member for member in archive.infolist()}
    if len(found) != len(archive.infolist()):
        raise Refused("it is a zip with two members of one name, which torch.save never writes")
    if any(name.endswith("/constants.pkl") for name in found):
        raise Refused("it is a program of TorchScript; save the state_dict() of its model")
    for name, member in found.items():
        if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
            raise Refused(
                f"its member {name[:100]!r} is compressed or encrypted, which torch.save never does; "
                "unpack it, and zip it without compression: zip -0 -r"
            )
        if member.compress_size != member.file_size:
            raise Refused(f"its member {name[:100]!r} has two sizes, as no file of torch.save has")
    if sum(member.file_size for member in found.values()) > size:
        raise Refused("its members together are larger than the file; no file of torch.save is so")
    return found


def _of_stream(content: _Mapped) -> Any:
    """Before torch 1.6: a number, a version, facts of the machine, the object, keys, storages."""
    if unpickled(content, known={}) != _MAGIC:
        raise Refused("it is a pickle, and none of torch.save; save the weights as safetensors")
    if unpickled(content, known={}) != _PROTOCOL:
        raise Refused(f"its protocol is not {_PROTOCOL}, the only one that torch.save has had")
    machine = unpickled(content, known={})
    if not isinstance(machine, dict):
        raise Refused("it does not say what machine has written it")
    if machine.get("little_endian") is not True:
        raise Refused("its numbers are big-endian; save it again on a little-endian machine")
    storages: dict[str, Storage] = {}
    found = unpickled(content, known=KNOWN, persistent=persistent(storages))
    keys = unpickled(content, known={})
    named = isinstance(keys, list) and all(isinstance(key, str) for key in keys)
    if not named or sorted(keys) != sorted(storages):
        raise Refused("its list of storages is not that of its tensors")
    view = memoryview(content)
    at = content.tell()
    for key in keys:
        storage = storages[key]
        entries = int.from_bytes(view[at : at + 8], "little", signed=True)
        if entries != storage.entries:
            raise Refused(f"it is damaged or cut short: storage {key[:50]!r} is of another size")
        at += 8
        storage.fill(view[at : at + storage.nbytes], f"storage {key[:50]!r}")
        at += storage.nbytes
    return found
