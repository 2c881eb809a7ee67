import json
import signal
import sys
from pathlib import Path

import jax
import numpy as np

from kdjax import tree
from kdjax.train.recorder import read
from tests import runs
from tests.compiled import HARDLY_OPTIMIZED
from tests.together import run_together
from tests.train.resumed import assert_goes_on

PROCESSES = 2
SCRIPT = Path(__file__).with_name("one_process.py")
STOPPED = Path(__file__).with_name("one_stopped.py")


def test_two_processes_of_four_devices_are_one_of_eight(tmp_path):
    """Three steps, saved and restored after the second; and two more of a run of one process."""
    for name, way in (("simclr", "pmap"), ("distillation", "mesh")):
        runs.fit(name, way, steps=2, folder=tmp_path / f"stopped-{name}-{way}")
    run_together(
        lambda port, index: [sys.executable, SCRIPT, port, PROCESSES, index, tmp_path],
        processes=PROCESSES,
        # Two compilers at once are most of this test: they need not try hard.
        environment={"PYTHONPATH": str(SCRIPT.parents[2]), **HARDLY_OPTIMIZED},
    )

    expected = {}
    for name, way in (("simclr", "pmap"), ("distillation", "mesh")):
        alone = runs.fitted(name, way)
        metrics = jax.tree.map(lambda values: values[:3], alone.metrics)
        leaves = tree.named_leaves({"metrics": metrics, "state": alone.states[2]})
        expected |= {f"{name}-{way}:{leaf}": value for leaf, value in leaves.items()}
    for index in range(PROCESSES):
        with np.load(tmp_path / f"found{index}.npz") as found:
            assert set(found) == set(expected)
            for leaf, value in expected.items():
                np.testing.assert_allclose(found[leaf], value, rtol=1e-5, atol=1e-5, err_msg=leaf)
        with np.load(tmp_path / f"resumed{index}.npz") as found:
            assert_goes_on(found, "simclr", "simclr-pmap")
            assert_goes_on(found, "distillation", "distillation-mesh")
    assert (tmp_path / "record0" / "metrics.jsonl").exists()
    assert not (tmp_path / "record1").exists()


def test_a_signal_to_one_of_two_processes_stops_both_at_one_step(tmp_path):
    """And the same command then ends as a run that nothing stopped."""
    said = run_together(
        lambda port, index: [sys.executable, STOPPED, port, PROCESSES, index, tmp_path],
        processes=PROCESSES,
        environment={"PYTHONPATH": str(SCRIPT.parents[2]), **HARDLY_OPTIMIZED},
    )
    first, second = (json.loads((tmp_path / f"stopped{i}.json").read_text()) for i in range(2))
    assert first == second
    assert first["code"] == 128 + signal.SIGTERM
    assert 10 <= first["kept"] <= 20
    assert (first["step"], first["w"]) == (40, 100 - 8 * sum(range(5)))
    assert [text.count("kdjax: SIGTERM: stopped at step") for text in said].count(1) <= 1
    lines = read(tmp_path / "log0" / "metrics.jsonl")
    assert [line["step"] for line in lines] == [*range(3, 40, 3), 40]
    before = np.concatenate([[0], np.cumsum(np.arange(40) % 5)])[:40]
    losses = (100.0 - before) * (np.arange(40) % 5)
    assert [line["loss"] for line in lines] == [
        np.mean(losses[end - 3 if end < 40 else 39 : end]) for end in [*range(3, 40, 3), 40]
    ]
