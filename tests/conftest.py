"""Eight fake CPU devices, checked shapes, strict ranks: set before anything of kdjax is imported."""

import os
import shutil
import tempfile

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("MPLBACKEND", "agg")

# Half of the time goes into XLA, and tests compile the same programs again and again: in this
# process, in that of another worker, in one that a test starts. Who compiles one leaves it here for
# all of them, which inherit the environment, until the session ends.
_compiled = None
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    _compiled = tempfile.mkdtemp(prefix="kdjax-compiled-")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _compiled
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"

import jax
import jaxtyping
import pytest

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")
jaxtyping.install_import_hook("kdjax", "beartype.beartype")


def pytest_unconfigure():
    if _compiled is not None:
        shutil.rmtree(_compiled, ignore_errors=True)


@pytest.fixture(scope="module")
def little_optimization():
    """For tests of small functions that run once or few times: the compiler need not try hard.

    Not for those that compare bytes or timings, which must see what users run.
    """
    before = jax.config.values["jax_disable_most_optimizations"]
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)
