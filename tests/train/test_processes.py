import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from kdjax import tree
from tests import runs

PROCESSES = 2
SCRIPT = Path(__file__).with_name("one_process.py")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where two processes of four devices have trained three steps, stopped after the second."""
    folder = tmp_path_factory.mktemp("processes")
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    root = str(SCRIPT.parents[2])
    begun = [
        subprocess.Popen(
            [sys.executable, SCRIPT, str(port), str(PROCESSES), str(index), folder],
            env=os.environ | {"PYTHONPATH": root},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for index in range(PROCESSES)
    ]
    try:
        said = [process.communicate(timeout=240)[0] for process in begun]
    finally:
        for process in begun:
            process.kill()
    for process, text in zip(begun, said, strict=True):
        assert process.returncode == 0, text[-4000:]
    return folder


@pytest.mark.parametrize(
    ("name", "way"), [("simclr", "pmap"), ("distillation", "pmap"), ("distillation", "mesh")]
)
def test_two_processes_are_one(folder, name, way):
    alone = runs.fitted(name, way)
    metrics = jax.tree.map(lambda values: values[:3], alone.metrics)
    expected = tree.named_leaves({"metrics": metrics, "state": alone.states[2]})
    for index in range(PROCESSES):
        with np.load(folder / f"found{index}.npz") as found:
            mine = {leaf for leaf in found if leaf.startswith(f"{name}-{way}:")}
            assert mine == {f"{name}-{way}:{leaf}" for leaf in expected}
            for leaf, value in expected.items():
                np.testing.assert_allclose(
                    found[f"{name}-{way}:{leaf}"], value, rtol=1e-5, atol=1e-5, err_msg=leaf
                )


def test_only_the_first_process_writes_the_record(folder):
    assert (folder / "record0" / "metrics.jsonl").exists()
    assert not (folder / "record1").exists()
