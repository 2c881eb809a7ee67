"""SIGTERM and SIGINT: while a run trains, a checkpoint first; a second one, or anywhere else, at once.

The exit status is 128 + the number of the signal: 143 and 130. That is what a shell reports of a
program that a signal ended, what SLURM and Kubernetes show for it, and in the range that schedulers
take for "try again" where they tell the two apart (the restart policy `ExitCode` of Kubeflow: 1 to 127
is a fault of the program, 128 to 255 is not).
"""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any, NoReturn

from kdjax.deadlines import GRACE_SECONDS

_UNWIND_SECONDS = 5
"""How long the main thread may take to end where nothing is waited for."""

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_asked: int = 0
_holding = _said = False


class Interrupted(SystemExit):
    """The run was asked to end, and has said so; its code is the exit status."""


@contextlib.contextmanager
def watched(
    *, grace_seconds: float = GRACE_SECONDS, then_exits: bool = False, says: bool = True
) -> Iterator[None]:
    """While this is open the signals are taken as this module says. For the main thread.

    Args:
      grace_seconds: after which a stop that is waited for is given up.
      then_exits: `Interrupted` is the end of the process, which libraries may not hold up.
      says: False in a process of whose end another one says a line.
    """
    global _asked, _holding, _said
    _asked, _holding, _said = 0, False, not says
    get, put = os.pipe()
    os.set_blocking(put, False)
    # The handlers of Python run when the main thread is back from what it calls, which may compile for
    # minutes: the numbers also go to a thread that can wait and end the process.
    before_fd = signal.set_wakeup_fd(put, warn_on_full_buffer=False)
    before = {number: signal.signal(number, _handle) for number in _SIGNALS}
    closed = threading.Event()
    watcher = threading.Thread(target=_watch, args=(get, grace_seconds, closed), daemon=True)
    watcher.start()
    try:
        yield
        closed.set()
    except BaseException as error:
        if not (then_exits and isinstance(error, Interrupted)):
            closed.set()  # otherwise the limit still holds
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(before_fd)
        os.close(put)  # which ends the thread
        _asked, _holding = 0, False


def asked() -> int:
    """The signal that asked this process to end, 0 while none did."""
    return _asked


def hold() -> None:
    """From here to the end of `scope` a signal is answered by who asks `asked`."""
    global _holding
    _holding = True


@contextlib.contextmanager
def scope() -> Iterator[None]:
    """The part of a run in which there may be something to lose, see `hold`."""
    global _holding
    try:
        yield
    finally:
        _holding = False
    if _asked:
        end(_asked)


def end(
    number: int, what: str = "ended; what is done stays done", *, said: bool = True
) -> NoReturn:
    """Says so, and raises `Interrupted`.

    Args:
      number: of the signal.
      what: has become of the run.
      said: False in all but one of several processes that end together.
    """
    global _said
    if said and not _said:
        _say(number, f"{what}; the same command goes on from there")
    _said = True
    raise Interrupted(128 + number)


def _say(number: int, what: str) -> None:
    # Not by `print`: what this interrupts may be printing.
    os.write(2, f"kdjax: {signal.Signals(number).name}: {what}\n".encode())


def _handle(number: int, frame: Any) -> None:
    global _asked
    _asked = _asked or number
    if not _holding:
        end(number)


def _watch(get: int, grace_seconds: float, closed: threading.Event) -> None:
    first = 0
    with os.fdopen(get, "rb", buffering=0) as numbers:
        while byte := numbers.read(1):
            if byte[0] not in _SIGNALS:
                continue
            if first:
                _exit(byte[0], "ended at once; what was saved before is kept")
            first = byte[0]
            limit = threading.Thread(
                target=_limit, args=(first, grace_seconds, closed), daemon=True
            )
            limit.start()


def _limit(number: int, grace_seconds: float, closed: threading.Event) -> None:
    begun = time.monotonic()
    while time.monotonic() - begun < (grace_seconds if _holding else _UNWIND_SECONDS):
        if closed.wait(timeout=0.1):
            return
    _exit(number, "ended without waiting any longer; what was saved before is kept")


def _exit(number: int, what: str) -> NoReturn:
    if not _said:
        _say(number, f"{what}; the same command goes on from there")
    os._exit(128 + number)
