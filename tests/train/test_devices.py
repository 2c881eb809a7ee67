"""A run is stopped on eight devices and goes on on others: one, two, four, in two processes."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests import runs
from tests.compiled import HARDLY_OPTIMIZED
from tests.train.resumed import assert_goes_on

SCRIPT = Path(__file__).with_name("on_devices.py")


@pytest.mark.parametrize("way", ["pmap", "mesh"])
@pytest.mark.parametrize("method", runs.METHODS)
def test_eight_devices_see_what_one_sees(method, way):
    found = runs.seen(method, way, start=0, stop=4)
    views = {"simclr": {"view_a", "view_b"}, "distillation": {"inputs"}}
    assert found.keys() == {"ids", *views[method]}
    wanted = runs.seen(method, "single", start=0, stop=4)
    for name, values in found.items():
        np.testing.assert_array_equal(values, wanted[name], err_msg=name)
        assert len(set(values.tolist())) == 4  # another batch each time
        # A step that went on from elsewhere would see something else.
        later = runs.seen(method, way, start=2, stop=4)[name]
        np.testing.assert_array_equal(later, values[2:])


@pytest.mark.thorough
@pytest.mark.parametrize("devices", [1, 2, 4])
def test_stopped_on_eight_goes_on_on_fewer(tmp_path, devices):
    ways = ["single"] if devices == 1 else ["pmap", "mesh"]
    cases = {f"{name}-{way}": (name, way) for name in runs.METHODS for way in ways}
    for case, (name, way) in cases.items():
        runs.fit(name, "pmap" if way == "single" else way, steps=2, folder=tmp_path / case)
    ended = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", SCRIPT, str(devices), tmp_path],
        env={
            **os.environ,
            "PYTHONPATH": str(SCRIPT.parents[2]),
            **HARDLY_OPTIMIZED,
        },
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert not ended.stderr.strip(), ended.stderr  # restored without a word
    with np.load(tmp_path / "found.npz") as found:
        for case, (name, _) in cases.items():
            assert_goes_on(found, name, case)
