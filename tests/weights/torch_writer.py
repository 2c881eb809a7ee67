"""Files as torch.save writes them, written by hand: so small, and without torch."""

import io
import struct
import tarfile
import zipfile
from typing import Any, NamedTuple

import numpy as np

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001


class Named(NamedTuple):
    """A global."""

    module: str
    name: str


class Call(NamedTuple):
    """Of a global."""

    function: Named
    arguments: tuple


class Persistent(NamedTuple):
    """Something beside the pickle."""

    said: Any


class Raw(NamedTuple):
    """Instructions as they are."""

    content: bytes


def written(value: Any) -> bytes:
    """Instructions that make a value, of protocol 2."""
    match value:
        case Raw(content):
            return content
        case Named(module, name):
            return f"c{module}\n{name}\n".encode()
        case Call(function, arguments):
            return written(function) + written(tuple(arguments)) + b"R"
        case Persistent(said):
            return written(said) + b"Q"
        case None:
            return b"N"
        case bool():
            return b"\x88" if value else b"\x89"
        case int():
            content = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
            return b"\x8a" + bytes([len(content)]) + content
        case float():
            return b"G" + struct.pack(">d", value)
        case str():
            content = value.encode(errors="surrogatepass")
            return b"X" + struct.pack("<I", len(content)) + content
        case tuple():
            return b"(" + b"".join(map(written, value)) + b"t"
        case list():
            return b"](" + b"".join(map(written, value)) + b"e"
        case dict():
            return b"}(" + b"".join(written(x) for pair in value.items() for x in pair) + b"u"
    raise TypeError(value)


def pickle(value: Any) -> bytes:
    """A whole pickle."""
    return b"\x80\x02" + written(value) + b"."


class Storage(NamedTuple):
    """Of a file: its key, its type as torch calls it, its bytes, and how many entries it says it has."""

    key: str
    kind: str
    content: bytes
    entries: int

    def persistent(self, *, view: tuple | None = None, zipped: bool = False) -> Persistent:
        """As a tensor names it."""
        kind = Named("torch", f"{self.kind}Storage")
        said = ("storage", kind, self.key, "cpu", self.entries)
        return Persistent(said if zipped else (*said, view))


def storage(key: str, kind: str, values: Any) -> Storage:
    """With the bytes of an array."""
    values = np.asarray(values)
    return Storage(key, kind, values.tobytes(), values.size)


def tensor(
    of: Storage, shape: Any = None, strides: Any = None, offset: int = 0, **how: Any
) -> Call:
    """A tensor of a storage, all of it by default."""
    shape = (of.entries,) if shape is None else shape
    if strides is None:
        strides = tuple(int(np.prod(shape[i + 1 :])) for i in range(len(shape)))
    hooks = Call(Named("collections", "OrderedDict"), ())
    arguments = (of.persistent(**how), offset, shape, strides, False, hooks)
    return Call(Named("torch._utils", "_rebuild_tensor_v2"), arguments)


def stream(value: Any, *storages: Storage, **facts: Any) -> bytes:
    """As before torch 1.6."""
    facts = {"protocol_version": PROTOCOL, "little_endian": True, "type_sizes": {}, **facts}
    head = [MAGIC, PROTOCOL, facts, value, [of.key for of in storages]]
    tail = [of.entries.to_bytes(8, "little", signed=True) + of.content for of in storages]
    return b"".join([*map(pickle, head), *tail])


def tarred(value: Any, *storages: Storage) -> bytes:
    """As before torch 0.1.12; of tensors that are made for a stream."""
    tensors: list[bytes] = []
    places = {of.key: i for i, of in enumerate(storages)}

    def named(value: Any) -> Any:
        match value:
            case Call(
                Named("torch._utils", "_rebuild_tensor_v2"), (of, offset, shape, strides, *_)
            ):
                kind, key = of.said[1:3]
                said = (100 + len(tensors), places[key], Named("torch", kind.name[:-7] + "Tensor"))
                numbers = [len(shape), *shape, *strides, offset]
                tensors.append(pickle(said) + struct.pack(f"<{len(numbers)}q", *numbers))
                return Persistent(str(99 + len(tensors)))
            case Call(Named("torch._utils", "_rebuild_parameter"), (of, *_)):
                return named(of)
            case dict():
                return {name: named(x) for name, x in value.items()}
            case list():
                return [*map(named, value)]
        return value

    tree = pickle(named(value))
    stored = [pickle(len(storages))]
    for i, of in enumerate(storages):
        said = (i, "cpu", Named("torch", f"{of.kind}Storage"))
        stored += [pickle(said), of.entries.to_bytes(8, "little", signed=True), of.content]
    content = {
        "sys_info": pickle({"protocol_version": 1000, "little_endian": True}),
        "pickle": tree,
        "storages": b"".join([*stored, pickle([])]),
        "tensors": b"".join([pickle(len(tensors)), *tensors]),
    }
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:", format=tarfile.PAX_FORMAT) as archive:
        for name, part in content.items():
            info = tarfile.TarInfo(name)
            info.size = len(part)
            archive.addfile(info, io.BytesIO(part))
    return made.getvalue()


def zipped(
    value: Any, *storages: Storage, compress: bool = False, order: bytes = b"little", **more: bytes
) -> bytes:
    """As since torch 1.6."""
    made = io.BytesIO()
    how = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
    with zipfile.ZipFile(made, "w", how) as archive:
        archive.writestr("model/data.pkl", pickle(value))
        archive.writestr("model/byteorder", order)
        for of in storages:
            archive.writestr(f"model/data/{of.key}", of.content)
        archive.writestr("model/version", b"3\n")
        for name, content in more.items():
            archive.writestr(f"model/{name}", content)
    return made.getvalue()
