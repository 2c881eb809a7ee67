"""Processes that train one model together, on loopback."""

import os
import socket
import subprocess
from collections.abc import Callable, Mapping, Sequence


def run_together(
    command: Callable[[int, int], Sequence[object]],
    *,
    processes: int,
    environment: Mapping[str, str],
) -> list[str]:
    """What each of them said, once all have ended well.

    Args:
      command: `(port of the coordinator, index of the process) -> its command line`.
      processes: how many to start.
      environment: what is added to that of this process.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    begun = [
        subprocess.Popen(
            [str(word) for word in command(port, index)],
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for index in range(processes)
    ]
    try:
        # A busy machine makes their compilers several times slower.
        said = [process.communicate(timeout=600)[0] for process in begun]
    finally:
        for process in begun:
            process.kill()
            process.communicate()
    ended = [process.returncode for process in begun]
    assert ended == [0] * processes, [text[-4000:] for text in said]
    return said
