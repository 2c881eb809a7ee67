"""Eight fake CPU devices, checked shapes, strict ranks: set before anything of kdjax is imported."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("MPLBACKEND", "agg")

import jax
import jaxtyping

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")
jaxtyping.install_import_hook("kdjax", "beartype.beartype")
