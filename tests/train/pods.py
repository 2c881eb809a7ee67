"""Pairs of processes that meet again and again, until one of them is lost; all pairs at once.

python pods.py FOLDER PEER_SECONDS JOIN_SECONDS END...

`{END: [status of each]}` goes to stdout, what they say to `FOLDER/END.INDEX`. Each of them is a fork
of this process, which has imported what they need and started no thread of jax.
"""

import json
import os
import signal
import socket
import sys
import time
import warnings
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils

from kdjax.train import pod


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def fail():
    print("it failed", file=sys.stderr)
    sys.exit(1)


def gather():
    multihost_utils.process_allgather(np.ones(1))


@pod.ends_with_the_others
def run(end: str, index: int, port: int, *, join_seconds: int, peer_seconds: int) -> None:
    pod.join(
        coordinator_address=f"127.0.0.1:{port}",
        num_processes=2,
        process_id=index,
        join_seconds=join_seconds,
        peer_seconds=peer_seconds,
    )
    gather()
    match end, index:
        case "fine", _:
            return
        case ("all fail", _) | ("the first fails", 0):
            fail()
        case "the first has a fault", 0:
            raise KeyError("a fault")
        case ("the first dies", 0) | ("the second dies", 1):
            die()
        case "the second dies at work", _:
            gather()
            if index == 1:
                die()
            while True:  # as training does: what is gathered breaks at once, or never comes
                gather()
        case "the second dies", 0:
            time.sleep(600)  # it exports something, alone
    gather()  # what never comes


def begin(folder: Path, end: str, index: int, port: int, **seconds: int) -> int:
    if child := os.fork():
        return child
    said = os.open(folder / f"{end}.{index}", os.O_WRONLY | os.O_CREAT)
    os.dup2(said, 2)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    run(end, index, port, **seconds)
    os._exit(0)


def main(folder: Path, peer_seconds: int, join_seconds: int, ends: list[str]) -> None:
    begun: dict[str, list[int]] = {}
    for end in ends:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        seconds = {"join_seconds": join_seconds, "peer_seconds": peer_seconds}
        indices = [int(end[-1])] if end.startswith("alone") else [0, 1]
        begun[end] = [begin(folder, end, i, port, **seconds) for i in indices]
    statuses = {
        end: [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        for end, children in begun.items()
    }
    json.dump(statuses, sys.stdout)


if __name__ == "__main__":
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", 1)
    pod._LEAVE_SECONDS = 5  # half: what is tested is mostly waiting
    warnings.simplefilter("ignore", RuntimeWarning)  # jax, of forks: it has not begun here
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])
