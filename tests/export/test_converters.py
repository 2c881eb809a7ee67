"""What jax2onnx imports compiles nothing that no model here has."""

import subprocess
import sys

import pytest

_PROGRAM = """
import pathlib, sys
import jax
from kdjax.export.converters import jax2onnx

programs = []
jax.monitoring.register_event_duration_secs_listener(
    lambda event, seconds, **_: programs.append(event) if "backend_compile" in event else None
)
folder = pathlib.Path(jax2onnx().__file__).parent / "plugins" / "equinox"
assert jax2onnx() is sys.modules["jax2onnx"]
print(len(programs))
written = {path.stem for path in (folder / "eqx" / "nn").glob("*.py")} - {"__init__"}
loaded = [name for name in written if f"jax2onnx.plugins.equinox.eqx.nn.{name}" in sys.modules]
print(len(loaded), len(written))
"""


def test_the_layers_of_equinox_are_imported_without_a_program():
    pytest.importorskip("jax2onnx")
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM], capture_output=True, text=True, check=True
    )
    programs, loaded, written = done.stdout.split()
    assert int(programs) == 0
    assert int(loaded) == int(written) > 10
