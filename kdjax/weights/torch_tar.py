"""Files of `torch.save` before 0.1.12: a tar of storages, tensors, and the pickle that names these."""

import io
import mmap
import struct
import tarfile
from collections.abc import Callable
from typing import IO, Any, cast

from kdjax.weights.torch_tensors import KNOWN, Storage, Tensor, tensor_of, whole
from kdjax.weights.unpickling import Global, Refused, unpickled

_MEMBERS = ("storages", "tensors", "pickle")


def read(file: mmap.mmap) -> Any:
    """What is in it, see `kdjax.weights.torch_files.read`.

    Args:
      file: its content.

    Raises:
      Refused: it is damaged, or of more than arrays.
    """
    try:
        with tarfile.open(fileobj=cast(IO[bytes], file), mode="r:") as archive:
            content = {}
            for member in archive:
                if not member.isreg() or member.issparse() or member.size > len(file):
                    raise Refused(
                        "it is a tar with more than files in it, or larger ones than itself"
                    )
                if member.name in _MEMBERS:
                    stream = archive.extractfile(member)
                    assert stream is not None
                    content[member.name] = stream.read()
    except (tarfile.TarError, ValueError, EOFError, OSError, OverflowError) as error:
        if isinstance(error, Refused):
            raise
        raise Refused("it is a damaged tar, or cut short") from None
    if missing := [name for name in _MEMBERS if name not in content]:
        raise Refused(f"it is a tar without {missing[0]!r}, and torch.save has not written it")
    storages, tensors, pickle = (io.BytesIO(content[name]) for name in _MEMBERS)
    found = _tensors(tensors, _storages(storages))
    return unpickled(pickle, known=KNOWN, persistent=_persistent(found))


def _storages(stream: io.BytesIO) -> dict[Any, Any]:
    """By key: a number, `(key, place, type)`, a size and the bytes of each; then views of them."""
    view, found = stream.getbuffer(), {}
    for _ in range(_count(stream)):
        key, _, kind = _items(unpickled(stream, known=KNOWN), 3)
        if not isinstance(kind, Global):
            raise Refused("it is damaged: a storage has no type")
        entries, at = int.from_bytes(stream.read(8), "little", signed=True), stream.tell()
        storage = Storage.of(kind, entries)
        storage.fill(view[at : at + storage.nbytes], "a storage")
        stream.seek(at + storage.nbytes)
        found[_number(key)] = whole(storage)
    views = unpickled(stream, known={})
    for one in views if isinstance(views, list) else ():
        key, root, start, entries = map(_number, _items(one, 4))
        if root not in found:
            raise Refused("it is damaged: a view is of no storage")
        found[key] = found[root].part(start, entries)
    return found


def _tensors(stream: io.BytesIO, storages: dict[Any, Any]) -> dict[int, Tensor]:
    """By key: a number, and `(key, storage, type)`, axes, shape, strides and offset of each."""
    found = {}
    for _ in range(_count(stream)):
        key, storage, _ = _items(unpickled(stream, known=KNOWN), 3)
        head = stream.read(8)
        if len(head) != 8 or _number(storage) not in storages:
            raise Refused("it is damaged or cut short: a tensor is of no storage")
        axes = int.from_bytes(head[:4], "little", signed=True)
        numbers = stream.read(8 * (2 * axes + 1)) if 0 <= axes <= 32 else b""
        if len(numbers) != 8 * (2 * axes + 1):
            raise Refused("it is damaged or cut short: a tensor has no shape")
        *both, offset = struct.unpack(f"<{2 * axes + 1}q", numbers)
        found[_number(key)] = tensor_of(
            storages[storage], offset, tuple(both[:axes]), tuple(both[axes:])
        )
    return found


def _persistent(tensors: dict[int, Tensor]) -> Callable[[Any], Tensor]:
    """What gives the tensor that a pickle names by its key, a number as text."""

    def found(said: Any) -> Tensor:
        text = said if isinstance(said, str) else ""
        key = int(text) if text.lstrip("-").isdecimal() and len(text) < 25 else None
        if key not in tensors:
            raise Refused("it has more than tensors: something that torch knows by a persistent id")
        return tensors[key]

    return found


def _count(stream: io.BytesIO) -> int:
    return _number(unpickled(stream, known={}))


def _number(value: Any) -> int:
    if type(value) is not int:
        raise Refused("it is damaged: something else is where a number must be")
    return value


def _items(value: Any, n: int) -> Any:
    if not isinstance(value, tuple | list) or len(value) != n:
        raise Refused("it is damaged: something else is where a storage or a tensor is named")
    return value
