"""Processes of one command that work side by side: while one times something, the others stand still.

The command that starts them says where they meet, in the environment; without it a process is alone.
"""

import contextlib
import fcntl
import os
import pathlib
import signal
from collections.abc import Iterator

MEETING = "KDJAX_MEETING"
"""The variable with the folder in which each of them has a file, named by its number."""

CORES = "KDJAX_CORES"
"""That with the cores of one of them, by commas; without it all of them."""

_TIMING = "timing"
_meeting: pathlib.Path | None = None


def is_helper() -> bool:
    """Whether a command has started this process to work side by side with others."""
    return MEETING in os.environ or _meeting is not None


def join() -> None:
    """From here on this process stands still while another one that has joined times something.

    It leads a group of processes, which do as it does. What it starts is no helper of the command. It
    keeps to its cores, which libraries count when they start their threads: jax has not begun by then.
    """
    global _meeting
    if cores := os.environ.pop(CORES, ""):
        os.sched_setaffinity(0, {int(core) for core in cores.split(",")})
    _meeting = pathlib.Path(os.environ.pop(MEETING))
    (_meeting / str(os.getpid())).touch()


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def shares(count: int) -> list[dict[str, str]]:
    """What the environment of each of so many processes has, for each to have its share of the cores.

    Threads of two processes that both have all cores wait for each other.
    """
    if not hasattr(os, "sched_getaffinity"):
        return [{} for _ in range(count)]
    ours = sorted(os.sched_getaffinity(0))
    n = len(ours)
    own = (ours[i * n // count : (i + 1) * n // count] or [ours[i % n]] for i in range(count))
    return [{CORES: ",".join(map(str, each))} for each in own]


def leave(meeting: pathlib.Path, pid: int) -> None:
    """Says that a process is no more. Whom it has stopped before its end goes on."""
    (meeting / str(pid)).unlink(missing_ok=True)
    _signal(meeting, signal.SIGCONT)


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Within, no other process of this command runs: one at a time, the others stand still.

    Those that began to wait for it stand still as well, and are woken before it is given back.
    """
    if (meeting := _meeting) is None:
        yield
        return
    with open(meeting / _TIMING, "wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            _signal(meeting, signal.SIGSTOP)
            yield
        finally:
            _signal(meeting, signal.SIGCONT)


def _signal(meeting: pathlib.Path, number: signal.Signals) -> None:
    """To the groups of all the others that have joined."""
    for name in os.listdir(meeting):
        if name.isdigit() and int(name) != os.getpid():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(int(name), number)
