"""What is left of several processes when one of them is lost, or never comes."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kdjax import main as command
from kdjax.train import pod
from kdjax.types import BadInput

SCRIPT = Path(__file__).with_name("pods.py")
PEER_SECONDS = 10
AGAIN = "The same command, given to all processes again, goes on from what is kept"
GONE = f"kdjax: process 0 is gone; see what it said last. {AGAIN}"
SILENT = (
    f"kdjax: process 1 gave no sign of life for {PEER_SECONDS} s; see what it said last. {AGAIN}"
)

# `{how it ends: what each of the two ends with: (status, all that it says)}`
ENDS = {
    "fine": [(0, ""), (0, "")],
    "the first dies": [(-signal.SIGKILL, ""), (pod.LOST, GONE)],
    "the second dies": [(pod.LOST, SILENT), (-signal.SIGKILL, "")],
    "the second dies at work": [(pod.LOST, SILENT), (-signal.SIGKILL, "")],
    "all fail": [(1, "it failed"), (1, "it failed")],
    "the first fails": [(1, "it failed"), (pod.LOST, GONE)],
    "the first has a fault": [(1, "KeyError: 'a fault'"), (pod.LOST, GONE)],
}


def begun(folder, *ends, join_seconds):
    """Pairs that run at once, each until its end."""
    return subprocess.Popen(
        [sys.executable, SCRIPT, folder, str(PEER_SECONDS), str(join_seconds), *ends],
        env={**os.environ, "PYTHONPATH": str(SCRIPT.parents[2])},
        stdout=subprocess.PIPE,
    )


def ended(process, folder):
    """`{end: [(status, what it says) of each]}` of them."""
    stdout, _ = process.communicate(timeout=300)
    assert process.returncode == 0
    return {
        end: [
            (status, path.read_text().strip())
            for status, path in zip(statuses, sorted(folder.glob(f"{end}.[01]")), strict=True)
        ]
        for end, statuses in json.loads(stdout).items()
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("pods")


@pytest.fixture(scope="module")
def processes(folder):
    """All that the tests below wait for, nearly all of their time: they wait for it once."""
    at = time.monotonic()
    lost = begun(folder, *ENDS, join_seconds=200)
    in_vain = begun(folder, "alone 0", "alone 1", join_seconds=3)
    yield {"lost": lost, "in vain": in_vain, "begun": at}
    for process in (lost, in_vain):
        process.kill()
        process.wait()


def test_one_that_waits_in_vain_says_so(processes, folder):
    """The first of these tests, so that it is not the time of the others that is taken."""
    for found in ended(processes["in vain"], folder).values():
        assert found == [
            (
                75,
                "kdjax: not all of the 2 processes came within 3 s; begin all of them with the same "
                "--coordinator_address and --num_processes, or raise --join_timeout_seconds",
            )
        ]
    assert time.monotonic() - processes["begun"] < 100


def test_one_that_is_lost_ends_the_others_with_a_line(processes, folder):
    for end, found in ended(processes["lost"], folder).items():
        for (status, said), (wanted_status, wanted) in zip(found, ENDS[end], strict=True):
            assert status == wanted_status, (end, said)
            if end == "the first has a fault":
                said = said.splitlines()[-1]  # the traceback is shown: it is nobody else's fault
            assert said == wanted, end


BAD = {
    "nothing says where": ([], "--distributed: "),
    "a part": (["--num_processes=2"], "give all of --coordinator_address, --num_processes and"),
    "no port": (["--coordinator_address=here"], "--coordinator_address: 'here' is not HOST:PORT"),
    "no host": (["--coordinator_address=:80"], "--coordinator_address: ':80' is not HOST:PORT"),
    "too many": (["--process_id=2"], "--process_id: 2 is not in 0 to 1"),
    "none": (["--num_processes=0"], "--num_processes: 0 is not positive"),
    "in use": ([], "cannot be opened (Address already in use); choose another"),
    "no time": (
        ["--peer_timeout_seconds=0"],
        "--peer_timeout_seconds=0: 0 is not a positive integer",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_a_pod_is_refused(case, tmp_path):
    more, message = BAD[case]
    argv = ["kdjax", "--config=none.py", f"--workdir={tmp_path}", "--distributed"]
    with socket.create_server(("", 0)) as taken:
        if case not in ("nothing says where", "a part"):
            address = f"--coordinator_address=localhost:{taken.getsockname()[1]}"
            argv += [address, "--num_processes=2", "--process_id=0"]
        with pytest.raises(BadInput) as refused:
            command.main([*argv, *more])
    assert message in str(refused.value)


def test_where_the_others_are_goes_with_distributed(tmp_path):
    argv = ["kdjax", "--config=none.py", f"--workdir={tmp_path}", "--process_id=0"]
    with pytest.raises(BadInput, match="--process_id go with --distributed"):
        command.main(argv)
