"""Each of these tests compiles small functions that run once: the compiler need not try hard."""

import jax
import pytest


@pytest.fixture(autouse=True, scope="module")
def _little_optimization():
    before = jax.config.values["jax_disable_most_optimizations"]
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)
