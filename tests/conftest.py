"""Eight fake CPU devices, checked shapes, strict ranks: set before anything of kdjax is imported."""

import os
import shutil
import tempfile

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("MPLBACKEND", "agg")

import jax
import jaxtyping
import pytest

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")
jaxtyping.install_import_hook("kdjax", "beartype.beartype")

# Half of the time goes into XLA, and tests compile the same programs again and again: in this process,
# in that of another worker, in one that a test starts. Who compiles one leaves it here for all of them,
# which inherit the environment, until the session ends. jax writes such a file in place: who meets one
# that is not whole yet warns of it and compiles.
_COMPILED, _LEAST_SECONDS = (
    "JAX_COMPILATION_CACHE_DIR",
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS",
)
_own = _COMPILED not in os.environ
if _own:
    os.environ[_COMPILED] = tempfile.mkdtemp(prefix="kdjax-compiled-")
    os.environ[_LEAST_SECONDS] = "0.1"
    os.environ["PYTHONWARNINGS"] = "ignore:Error reading persistent compilation cache"
    jax.config.update(_COMPILED.lower(), os.environ[_COMPILED])
    jax.config.update(_LEAST_SECONDS.lower(), float(os.environ[_LEAST_SECONDS]))


def pytest_collection_modifyitems(items):
    """Whole runs first: at the end one worker would wait for the other's."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


def pytest_unconfigure():
    if _own:
        shutil.rmtree(os.environ[_COMPILED], ignore_errors=True)


@pytest.fixture(scope="module")
def little_optimization():
    """For tests of small functions that run once or few times: the compiler need not try hard.

    Not for those that compare bytes or timings, which must see what users run.
    """
    before = jax.config.values["jax_disable_most_optimizations"]
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)
