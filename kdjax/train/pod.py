"""Several processes as one run: how they join, and how they end when one of them is lost.

`jax.distributed` has the processes tell each other that they live. Where one no longer does, it ends
every other from a thread of its own, by `abort`, whatever that one is waiting for: dozens of lines
and a C++ stack trace. No Python sees that coming, so the end itself is taken over here: one line, and
`LOST` as exit status.
"""

import collections
import contextlib
import ctypes
import functools
import os
import re
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import NoReturn, ParamSpec

import jax

from kdjax.deadlines import JOIN_SECONDS, LOST, PEER_SECONDS
from kdjax.types import BadInput

P = ParamSpec("P")

_LEAVE_SECONDS = 10
"""How long a process that has failed waits for the others to fail with it."""

_MESSAGE = re.compile(rb"[IWEF]\d{4} [\d:.]+ +\d+ (?P<file>[^:\s]+):\d+\] ")
"""How a message of the C++ parts begins; its further lines have no such beginning."""

_ABOUT_OTHERS = re.compile(rb"coordination|preemption_sync|distributed|^client\.h$")
"""The files whose messages are of other processes."""

_LOST = b"JAX distributed service detected fatal errors"
_SILENT = re.compile(rb"stopped sending heartbeats\)[^\n]*\n\s*(?:\S*task:)?(\d+)\s*\n")
_NO_LEADER = b"Failed to send RPC to coordination service"

_pod: "_Pod | None" = None


def join(
    *,
    coordinator_address: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    join_seconds: int = JOIN_SECONDS,
    peer_seconds: int = PEER_SECONDS,
) -> None:
    """Makes this process one of several, before anything is computed.

    From here on it ends with one line and status `LOST` where another is lost; its file descriptor 2
    is read by a thread of its own, which passes on all but what is said of other processes.

    Args:
      coordinator_address: `HOST:PORT` of process 0, None where a cluster says.
      num_processes: None where a cluster says.
      process_id: of this one, None where a cluster says.
      join_seconds: how long all of them may take to come.
      peer_seconds: one that gives no sign of life for so long is lost.

    Raises:
      BadInput: nothing says where the others are, or the numbers do not fit.
    """
    global _pod
    _check(coordinator_address, num_processes, process_id)
    _pod = _Pod(num_processes, join_seconds, peer_seconds)
    try:
        jax.distributed.initialize(
            coordinator_address,
            num_processes,
            process_id,
            initialization_timeout=join_seconds,
            heartbeat_timeout_seconds=peer_seconds,
        )
    except (ValueError, RuntimeError) as error:
        # Of a cluster that is none: this process stays one alone.
        _pod.close()
        _pod = None
        raise BadInput("--distributed", f"{str(error).splitlines()[0]}") from None
    _pod.joined = True


def ends_with_the_others(run: Callable[P, None]) -> Callable[P, None]:
    """A program that may `join`: it ends in time, whether the others end well, badly or not at all.

    What ends well waits for the others to do so. What raises `SystemExit` with another status waits
    a little for those that fail alike, and not for those that wait for it. Of any other exception
    nobody can tell at once whether the loss of a process is behind it: that is waited for, and if no
    process is lost the traceback is shown, with status 1.
    """

    @functools.wraps(run)
    def ended(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            run(*args, **kwargs)
            if _pod is not None and _pod.joined:
                jax.distributed.shutdown()
                _pod.joined = False
        except SystemExit as error:
            if _pod is not None and error.code:
                _pod.leave(error.code if isinstance(error.code, int) else 1)
            raise
        except Exception:
            if _pod is not None:
                _pod.wait_for_a_loss()
                traceback.print_exc()
                _pod.leave(1)
            raise

    return ended


def _shut_down() -> None:
    with contextlib.suppress(Exception):  # that of another has been said, or is this one's own
        jax.distributed.shutdown()


def _check(address: str | None, processes: int | None, process: int | None) -> None:
    """Raises `BadInput` for what `jax.distributed` would not refuse in a line, or only in time."""
    if (address is None) != (processes is None) or (address is None) != (process is None):
        raise BadInput(
            "--distributed",
            "give all of --coordinator_address, --num_processes and --process_id, or none where a "
            "cluster says",
        )
    if address is None or processes is None or process is None:
        return
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 2**16:
        raise BadInput("--coordinator_address", f"{address!r} is not HOST:PORT")
    if processes < 1:
        raise BadInput("--num_processes", f"{processes} is not positive")
    if not 0 <= process < processes:
        raise BadInput("--process_id", f"{process} is not in 0 to {processes - 1}")
    if process == 0 and "JAX_COORDINATOR_BIND_ADDRESS" not in os.environ:
        try:  # of a port in use jaxlib dies
            socket.create_server(("", int(port))).close()
        except OSError as error:
            raise BadInput(
                "--coordinator_address",
                f"port {port} of this host cannot be opened ({os.strerror(error.errno or 0)})",
                "choose another",
            ) from None


class _Stderr:
    """File descriptor 2, read by a thread; what is said of other processes is held back."""

    def __init__(self):
        self._real, self._before = os.dup(2), sys.stderr
        self._before.flush()
        sys.stderr = os.fdopen(os.dup(2), "w", buffering=1)
        get, put = os.pipe()
        os.dup2(put, 2)
        os.close(put)
        self._held: collections.deque[bytes] = collections.deque(maxlen=200)
        self._mark, self._drained = os.urandom(16).hex().encode() + b"\n", threading.Event()
        self._reader = threading.Thread(target=self._pass_on, args=(get,), daemon=True)
        self._reader.start()

    def close(self) -> None:
        """All as it was before."""
        sys.stderr.close()
        sys.stderr = self._before
        os.dup2(self._real, 2)  # with it goes the last end of the pipe to write to
        self._reader.join()
        os.close(self._real)

    def _pass_on(self, get: int) -> None:
        holds = False
        with os.fdopen(get, "rb") as lines:
            for line in lines:
                if line.endswith(self._mark):
                    self._drained.set()
                    continue
                if begin := _MESSAGE.match(line):
                    holds = _ABOUT_OTHERS.search(begin["file"]) is not None
                if holds:
                    self._held.append(line)
                else:
                    self.say(line)

    def held(self) -> bytes:
        """What was held back so far."""
        self._drained.clear()
        os.write(2, b"\n" + self._mark)
        self._drained.wait(timeout=2)
        return b"".join(self._held)

    def say(self, text: bytes) -> None:
        os.write(self._real, text)


class _Pod:
    """This process as one of several."""

    def __init__(self, processes: int | None, join_seconds: int, peer_seconds: int):
        self.joined = False
        self._processes, self._join_seconds = processes, join_seconds
        self._peer_seconds = peer_seconds
        self._leaves_with: int | None = None
        self._stderr = _Stderr()
        # A handler of the C library: one of Python would run later, in the main thread, and `abort`
        # does not return. This one is called by `abort` itself, in whatever thread that is.
        self._handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(self._aborted)
        self._signal = ctypes.CDLL(None).signal
        self._signal.argtypes = [ctypes.c_int, ctypes.c_void_p]
        self._signal.restype = ctypes.c_void_p
        self._before = self._signal(signal.SIGABRT, ctypes.cast(self._handler, ctypes.c_void_p))

    def close(self) -> None:
        """All as it was before."""
        self._signal(signal.SIGABRT, self._before)
        self._stderr.close()

    def _aborted(self, number: int) -> None:
        if self._leaves_with is not None:
            os._exit(self._leaves_with)
        held = self._stderr.held()
        if _LOST not in held:
            self._stderr.say(held)
            return  # to `abort`, which goes on
        self._stderr.say(f"kdjax: {self._line(held)}\n".encode())
        os._exit(LOST)

    def _line(self, held: bytes) -> str:
        if not self.joined:
            what = "the" if self._processes is None else f"the {self._processes}"
            return (
                f"not all of {what} processes came within {self._join_seconds} s; begin all of them "
                "with the same --coordinator_address and --num_processes, or raise "
                "--join_timeout_seconds"
            )
        if found := _SILENT.search(held):
            lost = f"process {found[1].decode()} gave no sign of life for {self._peer_seconds} s"
        elif _NO_LEADER in held:
            lost = "process 0 is gone"
        else:
            lost = "another process is gone"
        return (
            f"{lost}; see what it said last. The same command, given to all processes again, goes on "
            "from what is kept"
        )

    def wait_for_a_loss(self) -> None:
        """Ends this process within the time in which a loss is noticed, or returns after it."""
        time.sleep(self._peer_seconds + _LEAVE_SECONDS)

    def leave(self, status: int) -> NoReturn:
        """Ends this process with `status`, together with others that do so within a short time."""
        self._leaves_with = status
        if self.joined:
            leaving = threading.Thread(target=_shut_down, daemon=True)
            leaving.start()
            leaving.join(timeout=_LEAVE_SECONDS)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
