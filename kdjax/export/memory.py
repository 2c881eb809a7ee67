"""The memory that a file takes to be loaded and run, in a process that does nothing else.

The process is this very module run as a script, which runs a program beside it: neither imports anything
but numpy and the runtime.
"""

import os
import runpy
import subprocess
import sys
from pathlib import Path


def peak_memory(
    program: str | os.PathLike[str],
    path: str | os.PathLike[str],
    *,
    threads: int,
    batch: int,
    length: int | None = None,
) -> int | None:
    """Bytes by which the resident memory of a process rises at most, from before a file is loaded.

    What the runtime's own code takes once it is imported is not counted, so this is what one more
    model costs in a process that has it.

    Args:
      program: a Python file, beside this one where it is no whole path, with a function `run(path, *,
        threads, batch, length, start)`. It imports the runtime, calls `start()`, then loads and runs
        the file.
      path: of the file.
      threads: of one operator.
      batch: size of every first dimension that the model leaves open.
      length: of every other one; by default the longest that the file says it takes.

    Returns:
      None where the program fails, or the system does not say: it is asked for `/proc/self/status`,
      which is Linux's.
    """
    if not os.path.exists("/proc/self/clear_refs"):
        return None
    script = Path(__file__).absolute()
    arguments = [
        script,
        script.parent / program,
        path,
        threads,
        batch,
        *([] if length is None else [length]),
    ]
    done = subprocess.run(
        [
            sys.executable,
            "-P",
            *map(str, arguments),
        ],  # without the modules that are beside this one
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    return int(done.stdout) if done.returncode == 0 else None


def _resident(field: str) -> int:
    with open("/proc/self/status") as file:
        (line,) = (line for line in file if line.startswith(f"{field}:"))
    return int(line.split()[1]) * 1024


def _measured(program: str, path: str, threads: int, batch: int, length: int | None) -> int:
    before = 0

    def start() -> None:
        """Lets the peak begin anew, from what is resident now."""
        nonlocal before
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
        before = _resident("VmRSS")

    runpy.run_path(program)["run"](path, threads=threads, batch=batch, length=length, start=start)
    return max(_resident("VmHWM") - before, 0)


if __name__ == "__main__":
    _program, _path, _threads, _batch, *_length = sys.argv[1:]
    _fixed = int(_length[0]) if _length else None
    print(_measured(_program, _path, int(_threads), int(_batch), _fixed))
