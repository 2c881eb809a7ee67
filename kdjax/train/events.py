"""The event file that TensorBoard reads: scalars by step, written without a thread of its own."""

import os
import socket
import struct
import time
from collections.abc import Iterator, Mapping
from typing import Any

from etils import epath, epy

with epy.lazy_imports():  # slow to import, and a plan or a refusal does without
    from tensorboardX import crc32c
    from tensorboardX.proto import event_pb2

_messages: Any = event_pb2  # its classes are made when it is imported
_MARK = "events.out.tfevents."


class Events:
    """One event file of a folder, always of the same steps as the lines beside it."""

    def __init__(self, folder: epath.PathLike, lines: list[dict[str, int | float]]):
        """Makes it anew of the steps that are kept; each at the time that earlier files have for it."""
        folder = epath.Path(folder)
        found = sorted(path for path in folder.iterdir() if path.name.startswith(_MARK))
        times = {event.step: event.wall_time for path in found for event in read(path)}
        name = f"{_MARK}{int(time.time())}.{socket.gethostname()}"
        self._path = found[0] if found else folder / name
        begun = min(times.values(), default=time.time())
        self._pending = [_record(_messages.Event(wall_time=begun, file_version="brain.Event:2"))]
        for line in lines:
            self.add(line, times.get(int(line["step"])))
        self._whole = b"".join(self._pending)
        self._pending.clear()
        self._replace()
        for path in found[1:]:
            path.unlink()

    def add(self, line: Mapping[str, int | float], wall_time: float | None = None) -> None:
        """Takes a line of the log; `flush` writes it."""
        now = time.time() if wall_time is None else wall_time
        event = _messages.Event(wall_time=now, step=int(line["step"]))
        for name, value in line.items():
            if name != "step":
                event.summary.value.add(tag=name, simple_value=value)
        self._pending.append(_record(event))

    def flush(self) -> None:
        """Writes what was taken.

        Raises:
          OSError: it cannot be written.
        """
        new = b"".join(self._pending)
        self._pending.clear()
        if "://" in os.fspath(self._path):  # an object store cannot append
            self._whole += new
            self._replace()
        else:
            with open(self._path, "ab") as file:
                file.write(new)

    def _replace(self) -> None:
        beside = self._path.parent / "events.tmp"
        beside.write_bytes(self._whole)
        beside.replace(self._path)


def read(path: epath.PathLike) -> Iterator[Any]:
    """The events with scalars of a file, to its end or to where it is damaged."""
    data = epath.Path(path).read_bytes()
    while len(data) >= 12:
        (length,) = struct.unpack("<Q", data[:8])
        body, end = data[12 : 12 + length], data[12 + length : 16 + length]
        if len(end) < 4 or _masked(data[:8]) != data[8:12] or _masked(body) != end:
            return
        event = _messages.Event.FromString(body)
        if event.HasField("summary"):
            yield event
        data = data[16 + length :]


def _record(event: Any) -> bytes:
    """As TFRecord frames it: length, its checksum, event, its checksum."""
    body = event.SerializeToString()
    length = struct.pack("<Q", len(body))
    return length + _masked(length) + body + _masked(body)


def _masked(data: bytes) -> bytes:
    found = crc32c.crc32c(data)
    return struct.pack("<I", ((found >> 15 | found << 17) + 0xA282EAD8) & 0xFFFFFFFF)
