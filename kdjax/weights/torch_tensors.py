"""Tensors of torch, as its pickles say where they are in storages that are beside them."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from kdjax.weights.unpickling import Global, Refused

_MOST_AXES, _MOST_ENTRIES = 32, 2**48

_STORAGES = {
    "Double": np.float64,
    "Float": np.float32,
    "Half": np.float16,
    "BFloat16": ml_dtypes.bfloat16,
    "Long": np.int64,
    "Int": np.int32,
    "Short": np.int16,
    "Char": np.int8,
    "Byte": np.uint8,
    "Bool": np.bool_,
    "ComplexFloat": np.complex64,
    "ComplexDouble": np.complex128,
}
_DTYPES = {
    "float64": np.float64,
    "float32": np.float32,
    "float16": np.float16,
    "bfloat16": ml_dtypes.bfloat16,
    "float8_e4m3fn": ml_dtypes.float8_e4m3fn,
    "float8_e5m2": ml_dtypes.float8_e5m2,
    "int64": np.int64,
    "int32": np.int32,
    "int16": np.int16,
    "int8": np.int8,
    "uint64": np.uint64,
    "uint32": np.uint32,
    "uint16": np.uint16,
    "uint8": np.uint8,
    "bool": np.bool_,
    "complex64": np.complex64,
    "complex128": np.complex128,
}
_UNTYPED = ("torch.storage.UntypedStorage", "torch.storage._UntypedStorage")


class Storage:
    """Bytes that tensors share; `data` is set once they are found."""

    def __init__(self, dtype: np.dtype, entries: int):
        self.dtype, self.entries = dtype, entries
        self.data: memoryview | None = None

    @property
    def nbytes(self) -> int:
        """As many as there must be."""
        return self.entries * self.dtype.itemsize

    @classmethod
    def of(cls, kind: Global, entries: Any) -> "Storage":
        """Of a type as torch names it.

        Raises:
          Refused: it has no such type, or no such size.
        """
        if kind.name not in _STORAGE_DTYPES:
            raise Refused(f"it has a storage of type {kind.name}, which is none")
        return cls(_STORAGE_DTYPES[kind.name], _natural(entries))

    def fill(self, data: bytes | memoryview, name: str) -> None:
        """Gives it its bytes."""
        if len(data) != self.nbytes:
            raise Refused(
                f"it is damaged or cut short: {name} has {len(data):,} bytes, and its tensors take "
                f"{self.nbytes:,}"
            )
        self.data = memoryview(data)


class Part(NamedTuple):
    """Entries of a storage from a place on: what a tensor, or a view of the old kind, is of."""

    storage: Storage
    start: int
    entries: int

    def part(self, start: Any, entries: Any) -> "Part":
        """Some of these.

        Raises:
          Refused: there are not as many.
        """
        if _natural(start) + _natural(entries) > self.entries:
            raise Refused("a view of a storage is larger than it")
        return Part(self.storage, self.start + start, entries)


def whole(storage: Storage) -> Part:
    """All of it."""
    return Part(storage, 0, storage.entries)


class Tensor(NamedTuple):
    """A tensor of a file that is not read yet.

    Attributes:
      part: of the storage, that its entries are of.
      dtype: of its entries.
      offset: of the first one, in entries of this dtype.
      shape: of the tensor.
      strides: in entries.
    """

    part: Part
    dtype: np.dtype
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Of the array."""
        return math.prod(self.shape) * self.dtype.itemsize

    def array(self) -> np.ndarray:
        """A view of the bytes of the file, or a copy of them, with these strides."""
        storage, dtype = self.part.storage, self.dtype
        assert storage.data is not None
        if not math.prod(self.shape):
            return np.empty(self.shape, dtype)
        begin = self.part.start * storage.dtype.itemsize + self.offset * dtype.itemsize
        last = sum((n - 1) * by for n, by in zip(self.shape, self.strides, strict=True))
        # A bool of torch is a byte, and any but zero is true.
        kind = np.dtype(np.uint8) if dtype.kind == "b" else dtype
        flat = np.frombuffer(storage.data[begin : begin + (last + 1) * kind.itemsize], kind)
        strides = [by * kind.itemsize for by in self.strides]
        view = np.lib.stride_tricks.as_strided(flat, self.shape, strides, writeable=False)
        return view != 0 if dtype.kind == "b" else view


def persistent(storages: dict[str, Storage]) -> Callable[[Any], Part]:
    """What finds the storages that a pickle names, and keeps them by their keys."""

    def found(said: Any) -> Part:
        if not (isinstance(said, tuple) and said[0] == "storage" and len(said) in (5, 6)):
            raise Refused("it has more than tensors: something that torch knows by a persistent id")
        _, kind, key, _, entries, *view = said
        if not isinstance(kind, Global) or not isinstance(key, str):
            raise TypeError
        one = Storage.of(kind, entries)
        known = storages.setdefault(key, one)
        if (known.dtype, known.entries) != (one.dtype, one.entries):
            raise Refused(f"storage {key[:50]!r} has two types or sizes")
        if not any(view):
            return whole(known)
        _, start, part = view[0]
        return whole(known).part(start, part)

    return found


def _natural(number: Any) -> int:
    """A size or a place."""
    if type(number) is not int:
        raise TypeError
    if not 0 <= number <= _MOST_ENTRIES:
        raise Refused("it has a tensor with a size, a stride or a place that none has")
    return number


def _tensor(part: Any, offset: Any, shape: Any, strides: Any, *rest: Any) -> Tensor:
    """A tensor by where it begins in a storage, its shape, and the distances along it."""
    if len(rest) > 2 and rest[2]:
        raise Refused(
            "it has a tensor that is conjugated or negated lazily; call resolve_conj() first"
        )
    return tensor_of(part, offset, shape, strides)


def _tensor_v3(
    part: Any,
    offset: Any,
    shape: Any,
    strides: Any,
    requires_grad: Any,
    hooks: Any,
    dtype: Any,
    *_: Any,
) -> Tensor:
    """The same of a storage without a type."""
    return tensor_of(
        part, offset, shape, strides, np.dtype(_DTYPES[dtype.name.removeprefix("torch.")])
    )


def tensor_of(
    part: Any, offset: Any, shape: Any, strides: Any, dtype: np.dtype | None = None
) -> Tensor:
    """A tensor of entries that are there; of the storage's dtype, if no other is given.

    Raises:
      Refused: it is larger than its storage, or than any tensor is.
    """
    if not isinstance(part, Part) or not isinstance(shape, tuple | list):
        raise TypeError
    own = part.storage.dtype
    dtype = own if dtype is None else dtype
    shape, strides = tuple(map(_natural, shape)), tuple(map(_natural, strides))
    if len(shape) != len(strides) or len(shape) > _MOST_AXES:
        raise Refused(f"it has a tensor of {len(shape)} axes and {len(strides)} strides")
    if math.prod(max(side, 1) for side in shape) > _MOST_ENTRIES:
        raise Refused(f"it has a tensor of shape {[*shape]}, which no file holds")
    last = _natural(offset) + sum((n - 1) * by for n, by in zip(shape, strides, strict=True))
    if all(shape) and (last + 1) * dtype.itemsize > part.entries * own.itemsize:
        raise Refused(
            f"it has a tensor of shape {[*shape]} that is larger than its storage of "
            f"{part.entries:,} entries"
        )
    return Tensor(part, dtype, offset, shape, strides)


def _dict(items: Any = ()) -> dict[Any, Any]:
    """An ordered dict, with its items where an old pickle gives them at once."""
    found = {}
    for key, value in items:
        if not isinstance(key, str | int):
            raise TypeError
        found[key] = value
    return found


_CALLED = {
    "collections.OrderedDict": _dict,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_v3,
    "torch._utils._rebuild_parameter": lambda tensor, requires_grad, hooks: tensor,
    "torch._utils._rebuild_parameter_with_state": lambda tensor, requires_grad, hooks, state: (
        tensor
    ),
    "torch.Size": lambda sides=(): tuple(sides),
}
_STORAGE_DTYPES = {f"torch.{name}Storage": np.dtype(dtype) for name, dtype in _STORAGES.items()}
_STORAGE_DTYPES |= {n.replace("torch.", "torch.cuda."): d for n, d in _STORAGE_DTYPES.items()}
_STORAGE_DTYPES |= dict.fromkeys(_UNTYPED, np.dtype(np.uint8))
KNOWN = {name: Global(name, call) for name, call in _CALLED.items()}
_NAMED = [*_STORAGE_DTYPES, *(f"torch.{name}" for name in _DTYPES)]
_NAMED += [
    name.replace("Storage", "Tensor") for name in _STORAGE_DTYPES if "untyped" not in name.lower()
]
KNOWN |= {name: Global(name) for name in _NAMED}
