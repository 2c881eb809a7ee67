"""Eight fake CPU devices, checked shapes, strict ranks: set before anything of kdjax is imported."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("MPLBACKEND", "agg")

import jax
import jaxtyping
import pytest

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")
jaxtyping.install_import_hook("kdjax", "beartype.beartype")


@pytest.fixture(scope="module")
def little_optimization():
    """For tests of small functions that run once or few times: the compiler need not try hard.

    Not for those that compare bytes or timings, which must see what users run.
    """
    before = jax.config.values["jax_disable_most_optimizations"]
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)
