"""Writers that are killed: `[[folder, unit, moment], ...]` in, whether each was killed out.

Each writer is a fork of this process, which has imported what they need and started no thread.

    seconds    a SIGKILL after this share of the time that an undisturbed one needs
    lines      it sends itself one after this share of the lines of kdjax.teacher that are run
    last       as many lines before the end
    never      undisturbed
"""

import json
import os
import signal
import sys
import tempfile
import time
import warnings
from pathlib import Path

from kdjax import teacher
from tests.teacher import caches

_CODE = str(Path(teacher.__file__).parent)
_PAUSE = 0.006
"""Seconds of each answer: a kill may come while the teacher is asked, and while files are written."""


class _Slow(caches.Teacher):
    def __call__(self, rows, view):
        time.sleep(_PAUSE)
        return super().__call__(rows, view)


def _count_lines(limit: int) -> list[int]:
    """Of kdjax.teacher, as this thread runs them from now on; it dies at the limit."""
    count = [0]

    def trace(frame, event, arg):
        if not frame.f_code.co_filename.startswith(_CODE):
            return None
        if event == "line":
            if count[0] == limit:
                os.kill(os.getpid(), signal.SIGKILL)
            count[0] += 1
        return trace

    sys.settrace(trace)
    return count


def _write(folder: str, *, seconds: float | None = None, lines: int | None = None) -> bool:
    """Whether the writer was killed."""
    child = os.fork()
    if child == 0:
        if lines is not None:
            _count_lines(lines)
        caches.written(folder, ask=_Slow())
        os._exit(0)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise SystemExit(f"the writer of {folder} failed")
    return os.WIFSIGNALED(status)


def _lines_of_all() -> int:
    with tempfile.TemporaryDirectory() as folder:
        get, put = os.pipe()
        if os.fork() == 0:
            count = _count_lines(-1)
            caches.written(folder, ask=_Slow())
            os.write(put, str(count[0]).encode())
            os._exit(0)
        os.wait()
        return int(os.read(get, 100))


def _seconds_of_all() -> float:
    found = []
    for _ in range(3):
        with tempfile.TemporaryDirectory() as folder:
            begin = time.perf_counter()
            _write(folder)
            found.append(time.perf_counter() - begin)
    return min(found)


def main() -> None:
    seconds, lines = _seconds_of_all(), _lines_of_all()
    killed = []
    for folder, unit, moment in json.load(sys.stdin):
        match unit:
            case "seconds":
                killed.append(_write(folder, seconds=moment * seconds))
            case "lines":
                killed.append(_write(folder, lines=int(moment * lines)))
            case "last":
                killed.append(_write(folder, lines=lines - moment))
            case "never":
                killed.append(_write(folder))
    json.dump(killed, sys.stdout)


if __name__ == "__main__":
    warnings.simplefilter("ignore", RuntimeWarning)  # jax, of forks: none of these uses it
    main()
