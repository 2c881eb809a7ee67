"""Stages that do not wait for each other, done side by side by processes of one command."""

import contextlib
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence

from kdjax import alone
from kdjax.measuring.parity import StageFailed
from kdjax.train import interruption

_POLL_SECONDS = 0.2
_INPUT, _READY = 0, b"begin\n"
_PROGRAM = "from kdjax.main import program; program()"


class Workers:
    """Processes that have been started, and wait until they may begin.

    Attributes:
      count: how many.
    """

    def __init__(self, meeting: pathlib.Path, count: int, arguments: Sequence[str]):
        self.count = count
        self._meeting = meeting
        self._left: dict[int, subprocess.Popen[bytes]] = {}
        for own in alone.shares(count):
            worker = subprocess.Popen(
                # Without the folder of the working directory in front, as the program is started.
                [sys.executable, "-P", "-c", _PROGRAM, *arguments],
                stdin=subprocess.PIPE,
                env={**os.environ, alone.MEETING: str(meeting), **own},
                process_group=0,  # what a terminal sends comes to this process, which passes it on
            )
            self._left[worker.pid] = worker

    def work(self) -> None:
        """Lets them begin, and waits for all of them.

        Where one fails it has said so, and the others are stopped: what they train is kept.

        Raises:
          SystemExit: with the status of the one that failed.
          StageFailed: one was ended from outside.
          Interrupted: this process was asked to end, and they have ended.
        """
        with interruption.scope():
            interruption.hold()
            for worker in self._left.values():
                assert worker.stdin is not None
                with contextlib.suppress(BrokenPipeError):  # it has failed, see below
                    worker.stdin.write(_READY)
                    worker.stdin.flush()
            while self._left and not interruption.asked():
                for status in self._ended():
                    if status < 0:
                        raise StageFailed(
                            f"a process that did some of the stages was ended by "
                            f"{signal.Signals(-status).name}; what is done stays done, and the same "
                            "command goes on from there (where memory was short, with fewer --jobs)"
                        )
                    if status:
                        raise SystemExit(status)
                time.sleep(_POLL_SECONDS)
            if number := interruption.asked():
                self.stop(number)
                interruption.end(number, "stopped; what was being trained is kept")

    def _ended(self) -> Iterator[int]:
        for pid, worker in [*self._left.items()]:
            if (status := worker.poll()) is not None:
                del self._left[pid]
                alone.leave(self._meeting, pid)
                yield status

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Asks all that are left to end as a signal does, and waits until they have."""
        for worker in self._left.values():
            worker.send_signal(number)
            worker.send_signal(signal.SIGCONT)
        while self._left:
            for _ in self._ended():
                pass
            time.sleep(_POLL_SECONDS)


@contextlib.contextmanager
def started(count: int, arguments: Sequence[str]) -> Iterator[Workers]:
    """Starts so many processes with these arguments of the program; whatever ends this ends them."""
    with tempfile.TemporaryDirectory(prefix="kdjax-") as meeting:
        workers = Workers(pathlib.Path(meeting), count, arguments)
        try:
            yield workers
        finally:
            workers.stop()


def began() -> None:
    """For one of these processes: waits until it may begin. From then on it ends with its command.

    Raises:
      SystemExit: the command has ended before.
    """
    if os.read(_INPUT, len(_READY)) != _READY:
        raise SystemExit(1)
    alone.join()
    threading.Thread(target=_follow, name="command", daemon=True).start()


def _follow() -> None:
    """Ends this process as a signal does when the command is gone that has started it."""
    while os.read(_INPUT, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
