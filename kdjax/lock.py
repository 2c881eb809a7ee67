"""One process at a thing at a time: a file that names its holder.

On a file system taking a lock is atomic, and so is taking over one whose holder is gone: at once where
it was a process of this machine, after `STALE_SECONDS` without a sign of life where it was one of
another. A bucket can neither be linked into nor locked: there two processes that begin within the same
moment may both go on.
"""

import contextlib
import dataclasses
import datetime
import errno
import fcntl
import functools
import json
import os
import shlex
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator

from etils import epath

from kdjax import files
from kdjax.files import from_json
from kdjax.types import StorageFailed

SIGN_SECONDS = 10.0
"""Distance between two signs of life of a holder."""

STALE_SECONDS = 120.0
"""Age of the last one at which a process of another machine is taken to be gone."""

_POLL_SECONDS = 0.5


class Busy(RuntimeError):
    """Another process is at what this one was to do: one line that names it."""


@dataclasses.dataclass(frozen=True)
class Holder:
    """Who holds a lock.

    Attributes:
      host: name of the machine.
      machine: what tells it from others of that name, and from itself before it was started anew.
      pid: of the process there.
      begun: when the process was started, in ticks since the machine was; -1 where it is not known.
      since: when the lock was taken, local time with its offset.
      command: of the process.
      token: of this very lock.
    """

    host: str
    machine: str
    pid: int
    begun: int
    since: str
    command: str
    token: str

    def __str__(self) -> str:
        if self.pid < 0:
            return "someone whom the lock does not name"
        return f"process {self.pid} on {self.host}, since {self.since} ({self.command})"

    @classmethod
    def this(cls) -> "Holder":
        """This process."""
        return cls(
            host=socket.gethostname(),
            machine=_machine(),
            pid=os.getpid(),
            begun=_begun(os.getpid()) or -1,
            since=datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
            command=shlex.join(["kdjax", *sys.argv[1:]]),
            token=uuid.uuid4().hex,
        )

    @property
    def is_here(self) -> bool:
        """Whether its process is one that this one can look for."""
        return (self.host, self.machine) == (socket.gethostname(), _machine())

    @property
    def runs(self) -> bool:
        """Whether its process is there, and not another one with its number."""
        return (found := _begun(self.pid)) is not None and found in (self.begun, -1)


@functools.cache
def _machine() -> str:
    """Of this start of this machine and, in a container, of its own numbering of processes."""
    parts = []
    with contextlib.suppress(OSError), open("/proc/sys/kernel/random/boot_id") as file:
        parts.append(file.read().strip())
    with contextlib.suppress(OSError):
        parts.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(parts)


def _begun(pid: int) -> int | None:
    """When a process was started, -1 where that cannot be known; None where there is none."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()  # its name may hold anything
    except OSError:
        if os.path.exists("/proc/self/stat"):
            return None
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return None
        except OSError:
            pass  # someone else's
        return -1
    return None if fields[0] in "ZX" else int(fields[19])  # dead, and nobody has asked for it yet


class Lock:
    """A lock that this process holds, until `close`. It shows that it lives as long as it does.

    Attributes:
      before: who held it and is gone; None where it was free.
    """

    def __init__(self, path: epath.Path, holder: Holder, *, before: Holder | None):
        self.before = before
        self._path, self._holder = path, holder
        self._ended, self._lost = threading.Event(), False
        self._signs = threading.Thread(target=self._show, name=f"lock {path.name}", daemon=True)
        self._signs.start()

    def _show(self) -> None:
        while not self._ended.wait(SIGN_SECONDS):
            with contextlib.suppress(OSError):
                if self._is_ours():
                    _touch(self._path, self._holder)

    def _is_ours(self) -> bool:
        found = _read(self._path)
        self._lost = found is None or found.token != self._holder.token
        return not self._lost

    def check(self) -> None:
        """Asks whether it is still held, before what it guards is said to be finished.

        Raises:
          StorageFailed: it was taken away or over, as that of a process that stood still for long.
        """
        with files.storing(self._path):
            if self._is_ours():
                return
            what = "was taken over" if _read(self._path) is not None else "was taken away"
        raise StorageFailed(
            f"{self._path}: this lock {what} while its run was at work; if no other one is at it, run "
            "the same command again"
        )

    def close(self) -> None:
        """Gives it back; where it is not held any more, nothing happens."""
        self._ended.set()
        with contextlib.suppress(OSError), _guarded(self._path.parent):
            if self._is_ours():
                self._path.unlink()


def holder(path: epath.PathLike) -> Holder | None:
    """Who holds a lock now; None where nobody does that is still alive.

    Raises:
      StorageFailed: the storage does not give the file.
    """
    path = epath.Path(path)
    with files.storing(path):
        found = _read(path)
        return found if found is not None and _lives(found, path, time.time()) else None


def clear(path: epath.PathLike) -> None:
    """Takes away a lock whose holder is gone, killed before it was given back.

    A storage that does not let it leaves it: whoever takes the lock next follows all the same.
    """
    path = epath.Path(path)
    with contextlib.suppress(OSError), _guarded(path.parent):
        found = _read(path)
        if found is not None and not _lives(found, path, time.time()):
            path.unlink()


def take(path: epath.PathLike) -> "Lock | Holder":
    """Takes a lock, or says who holds it; that of a process which is gone is taken over.

    Raises:
      StorageFailed: the storage does not give or take the file.
    """
    path, mine = epath.Path(path), Holder.this()
    with files.storing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        before = _read(path)
        other = _take_file(path, mine) if files.is_local(path) else _take_object(path, mine)
    return Lock(path, mine, before=before) if other is None else other


@contextlib.contextmanager
def held(path: epath.PathLike, *, waiting: Callable[[Holder], None]) -> Iterator[Lock]:
    """Holds a lock within, which is given back at whatever ends it.

    Args:
      path: of the lock.
      waiting: called once with each process that is waited for.

    Raises:
      StorageFailed: the storage does not give or take the file.
    """
    told = ""
    while not isinstance(found := take(path), Lock):
        if found.token != told:
            waiting(found)
            told = found.token
        time.sleep(_POLL_SECONDS)
    try:
        yield found
    finally:
        found.close()


def _text(holder: Holder) -> bytes:
    return json.dumps(dataclasses.asdict(holder), indent=1).encode()


def _read(path: epath.Path) -> Holder | None:
    """The holder; None where there is no lock. What cannot be understood is somebody's elsewhere."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        return Holder(**from_json(content))
    except (ValueError, TypeError):
        return Holder("", "?", -1, -1, "", "", content.hex())


def _lives(holder: Holder, path: epath.Path, now: float) -> bool:
    if holder.is_here:
        return holder.runs
    try:
        last = os.stat(path).st_mtime if files.is_local(path) else path.stat().mtime
    except FileNotFoundError:
        return False
    return now - last < STALE_SECONDS


def _touch(path: epath.Path, holder: Holder) -> None:
    if files.is_local(path):
        os.utime(path)  # by the clock of the file system, which `_take_file` asks, too
    else:
        path.write_bytes(_text(holder))


def _take_file(path: epath.Path, mine: Holder) -> Holder | None:
    """Links a whole file into place; gives who has done so before."""
    beside = path.parent / f".{mine.token}{files.PART}"
    try:
        with open(beside, "xb") as file:
            file.write(_text(mine))
        with _guarded(path.parent):
            while not _linked(beside, path):
                other = _read(path)
                if other is None:
                    continue  # it was given back in this moment
                if _lives(other, path, os.stat(beside).st_mtime):
                    return other
                path.unlink(missing_ok=True)
    finally:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
    return None


def _linked(beside: epath.Path, path: epath.Path) -> bool:
    """Whether `path` was free and is now this file."""
    try:
        os.link(beside, path)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS):
            raise
        # No links on this file system: whoever reads it between the next two lines waits a moment.
        try:
            with open(path, "xb") as file:
                file.write(beside.read_bytes())
        except FileExistsError:
            return False
    return True


@contextlib.contextmanager
def _guarded(folder: epath.Path) -> Iterator[None]:
    """One process of a machine at a time, so that two do not take over the same lock.

    Not every network file system can do it for a folder; there the moment is as short as it is.
    """
    if not files.is_local(folder):
        yield
        return
    number = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(number, fcntl.LOCK_EX)
        yield
    finally:
        os.close(number)


def _take_object(path: epath.Path, mine: Holder) -> Holder | None:
    other = _read(path)
    if other is not None and _lives(other, path, time.time()):
        return other
    path.write_bytes(_text(mine))
    found = _read(path)  # the last one who wrote has it
    return None if found is not None and found.token == mine.token else found
