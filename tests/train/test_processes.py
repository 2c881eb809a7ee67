import sys
from pathlib import Path

import jax
import numpy as np

from kdjax import tree
from tests import runs
from tests.together import run_together
from tests.train.resumed import assert_goes_on

PROCESSES = 2
SCRIPT = Path(__file__).with_name("one_process.py")


def test_two_processes_of_four_devices_are_one_of_eight(tmp_path):
    """Three steps, saved and restored after the second; and two more of a run of one process."""
    for name, way in (("simclr", "pmap"), ("distillation", "mesh")):
        runs.fit(name, way, steps=2, folder=tmp_path / f"stopped-{name}-{way}")
    run_together(
        lambda port, index: [sys.executable, SCRIPT, port, PROCESSES, index, tmp_path],
        processes=PROCESSES,
        # Two compilers at once are most of this test: they need not try hard.
        environment={"PYTHONPATH": str(SCRIPT.parents[2]), "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"},
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
