"""The tensors of safetensors files: what their headers say, and their values in float32.

A safetensors file is a header and plain numbers: nothing in it can be run. Everything else that weights
come in, a pickle above all, is refused by its first bytes, whatever its name.
"""

import contextlib
import dataclasses
import functools
import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import safetensors

from kdjax import files
from kdjax.files import from_json
from kdjax.types import BadInput

INDEX = "model.safetensors.index.json"
"""Of weights in several files: which tensor is in which."""

FIELD = "weights"
"""What messages call the weights; whoever has them in a config says where, see `kdjax.types.under`."""

_PICKLES = (".pth", ".pt", ".bin", ".ckpt", ".pkl", ".pickle", ".tar")
_EXACT = ("F32", "F16", "BF16")
_TAKEN = (*_EXACT, "F64")
_HEADER_START = 8
"""Bytes before the header: its length, little-endian."""

_LONGEST_INDEX = 2**26
"""Bytes of an index that is read: one for a million tensors is about as large."""


class Tensor(NamedTuple):
    """What a header says of a tensor.

    Attributes:
      dtype: as safetensors writes it: `F32`, `BF16`, `I64`.
      shape: of it.
      file: that has it.
    """

    dtype: str
    shape: tuple[int, ...]
    file: Path


@dataclasses.dataclass(frozen=True)
class Tensors:
    """All tensors of one model, in one file or several; their values are read one by one.

    Attributes:
      place: the file or the folder, for messages.
      files: where they are, and the index if there is one.
      said: of each, by name.
      metadata: of the header, where it is one file.
    """

    place: Path
    files: tuple[Path, ...]
    said: Mapping[str, Tensor]
    metadata: Mapping[str, str]

    @property
    def sha256(self) -> str:
        """Of the content of all files; read once in this process, unless one changes."""
        marks = [_sha256(file, *_stamp(file)) for file in self.files]
        if len(marks) == 1:
            return marks[0]
        return hashlib.sha256("".join(marks).encode()).hexdigest()

    def check_finite(self, names: Iterable[str]) -> None:
        """Raises `BadInput` where a value of these is not finite in float32."""
        _check_finite(self.place, tuple(names), tuple((file, *_stamp(file)) for file in self.files))

    @contextlib.contextmanager
    def reading(self) -> Iterator["Reader"]:
        """Reads values: `reader(name)` is the tensor as it is in the file."""
        with contextlib.ExitStack() as stack:
            opened = {
                file: stack.enter_context(_opened(file))
                for file in dict.fromkeys(tensor.file for tensor in self.said.values())
            }
            yield Reader(self, opened)


@dataclasses.dataclass(frozen=True)
class Reader:
    """Reads the values of tensors."""

    tensors: Tensors
    opened: Mapping[Path, Any]

    def raw(self, name: str) -> np.ndarray:
        """As it is in the file."""
        try:
            return self.opened[self.tensors.said[name].file].get_tensor(name)
        except (safetensors.SafetensorError, OSError) as error:
            raise _broken(self.tensors.said[name].file, error) from None

    def in_float32(self, name: str) -> np.ndarray:
        """In float32: exactly, but for float64, which is rounded.

        Raises:
          BadInput: it has a value that is not finite.
        """
        found = self.raw(name).astype(np.float32)
        if not np.isfinite(found).all():
            raise BadInput(
                FIELD,
                f"{self.tensors.said[name].file}: {name} has values that are not finite in float32",
                "take a file that was written before the training failed",
            )
        return found


def refuse_dtype(name: str, tensor: Tensor) -> None:
    """Raises `BadInput` where a tensor is no floating-point number that float32 can hold."""
    if tensor.dtype not in _TAKEN:
        raise BadInput(
            FIELD,
            f"{tensor.file}: {name} is {tensor.dtype}, and weights are read from {', '.join(_TAKEN)}",
            "take the file of the model in float",
        )


def opened(place: Path) -> Tensors:
    """Reads the headers of a file, or of the files of a folder.

    Args:
      place: a safetensors file, or a folder with one, or with an index of several.

    Raises:
      BadInput: there is none, or it is no safetensors file, or not whole.
    """
    if not place.exists():
        raise BadInput(FIELD, f"{place}: no such file or folder", "give a safetensors file")
    if not place.is_dir():
        return _of_files(place, (place,))
    if (place / INDEX).is_file():
        return _of_index(place)
    found = sorted(place.glob("*.safetensors"))
    if (whole := place / "model.safetensors") in found:
        found = [whole]
    if len(found) == 1:
        return _of_files(place, (found[0],))
    pickles = sorted(path.name for path in place.iterdir() if path.suffix in _PICKLES[:-1])
    if pickles and not found:
        raise _pickle(place / pickles[0])
    names = ", ".join(path.name for path in found[:3])
    raise BadInput(
        FIELD,
        f"{place}: {len(found)} safetensors files ({names})" if found else f"{place}: no weights",
        f"name the file, or write an index ({INDEX})" if found else "give a safetensors file",
    )


def _of_index(folder: Path) -> Tensors:
    index = folder / INDEX
    said = read_json(index).get("weight_map")
    if not isinstance(said, Mapping) or not said:
        raise BadInput(FIELD, f"{index}: no weight_map", "download it again")
    names = sorted({str(name) for name in said.values()})
    for name in names:
        if Path(name).name != name:
            raise BadInput(FIELD, f"{index}: {name!r} is no name of a file in this folder")
        if not (folder / name).is_file():
            raise BadInput(FIELD, f"{folder / name}: missing, and {INDEX} names it")
    found = _of_files(folder, tuple(folder / name for name in names))
    lost = [name for name, file in said.items() if name not in found.said]
    if lost:
        raise BadInput(FIELD, f"{index}: {named(lost)} in none of the files", "download them again")
    return dataclasses.replace(found, files=(*found.files, index))


def _of_files(place: Path, of: Sequence[Path]) -> Tensors:
    said: dict[str, Tensor] = {}
    metadata: Mapping[str, str] = {}
    for file in of:
        with _opened(file) as reader:
            metadata = reader.metadata() or {}
            for name in reader.keys():  # noqa: SIM118 a handle, and no mapping
                if name in said:
                    raise BadInput(FIELD, f"{file}: {name} is also in {said[name].file}")
                header = reader.get_slice(name)
                shape = tuple(map(int, header.get_shape()))
                said[name] = Tensor(header.get_dtype(), shape, file)
    return Tensors(place, tuple(of), said, metadata if len(of) == 1 else {})


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[Any]:
    """The library's handle of a file.

    Raises:
      BadInput: it is another kind of file, or cut off, or its header is not sound.
    """
    _refuse_others(file)
    try:
        with safetensors.safe_open(file, framework="numpy") as reader:
            yield reader
    except (safetensors.SafetensorError, OSError) as error:
        raise _broken(file, error) from None


def _refuse_others(file: Path) -> None:
    """Refuses what does not begin as a safetensors file does, and says what it is where that shows."""
    try:
        with open(file, "rb") as reader:
            start = reader.read(_HEADER_START + 1)
    except OSError as error:
        raise BadInput(FIELD, files.described(error, file) or f"{file}: {error}") from None
    if start[_HEADER_START:] == b"{":
        return
    is_pickle = start[:2] in (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
    if is_pickle or start[:4] == b"PK\x03\x04" or file.suffix in _PICKLES:
        raise _pickle(file)
    if start[:4] == b"\x89HDF":
        raise BadInput(FIELD, f"{file}: HDF5", "give a safetensors file")
    size = os.path.getsize(file)
    fault = "empty" if not size else f"no safetensors file, or cut off at {size:,} bytes"
    raise BadInput(FIELD, f"{file}: {fault}", "give a safetensors file, or download it again")


def _pickle(file: Path) -> BadInput:
    name = file.with_suffix(".safetensors").name
    return BadInput(
        FIELD,
        f"{file}: a pickle, which can run any code, and is not opened",
        f"convert it: kdjax convert {file} {f'converted-{name}' if name == file.name else name}",
    )


def _broken(file: Path, error: Exception) -> BadInput:
    said = " ".join(str(error).split()).removeprefix("Error while deserializing header: ")
    cut = "not fully covered" in said or "invalid header length" in said or "too small" in said
    fault = "cut off" if cut else "no sound safetensors file"
    if cut and (more := _behind(file)) > 0:
        fault = f"{more:,} bytes behind its last tensor"
    return BadInput(
        FIELD, f"{file}: {fault} ({said or type(error).__name__})", "download or write it again"
    )


def _behind(file: Path) -> int:
    """How many bytes there are more than its header tells of; 0 where it tells of none."""
    try:
        with open(file, "rb") as reader:
            length = int.from_bytes(reader.read(_HEADER_START), "little")
            header = from_json(reader.read(min(length, _LONGEST_INDEX)))
        own = (one for name, one in header.items() if name != "__metadata__")
        end = max((int(one["data_offsets"][1]) for one in own), default=0)
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return 0
    return os.path.getsize(file) - _HEADER_START - length - end


def read_json(file: Path) -> Mapping[str, Any]:
    """The fields of a JSON file.

    Raises:
      BadInput: it cannot be read, or is no JSON object.
    """
    try:
        if file.stat().st_size > _LONGEST_INDEX:
            raise BadInput(FIELD, f"{file}: larger than {_LONGEST_INDEX:,} bytes")
        found = from_json(file.read_text())
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:100]
        raise BadInput(FIELD, f"{file}: cannot be read as JSON ({reason})") from None
    if not isinstance(found, Mapping):
        raise BadInput(FIELD, f"{file}: no JSON object")
    return found


def named(names: Sequence[str], *, shown: int = 3) -> str:
    """The first few names, and how many there are: `a, b, c and 12 more`."""
    listed = ", ".join(names[:shown])
    return listed if len(names) <= shown else f"{listed} and {len(names) - shown} more"


def _stamp(file: Path) -> tuple[int, int, int]:
    found = os.stat(file)
    return found.st_size, found.st_mtime_ns, found.st_ino


@functools.lru_cache(maxsize=256)
def _sha256(file: Path, size: int, changed_ns: int, inode: int) -> str:
    return files.sha256(file)


@functools.lru_cache(maxsize=256)
def _check_finite(place: Path, names: tuple[str, ...], stamps: tuple[Any, ...]) -> None:
    """See `Tensors.check_finite`; `stamps` say that the files are what they were."""
    with opened(place).reading() as reader:
        for name in names:
            reader.in_float32(name)


def exact(values: np.ndarray, dtype: str) -> np.ndarray | None:
    """Float32 in a smaller dtype of safetensors; None where that would change a value."""
    kinds = {"F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16, "F64": np.float64}
    with np.errstate(over="ignore"):
        found = values.astype(kinds[dtype])
    return found if np.array_equal(found.astype(np.float32), values) else None
