"""How programs are compiled that a test runs once or few times: XLA need not try hard for them.

Without LLVM's optimizations, and without XLA's newer code for what it fuses, a train step is
compiled in a quarter of the time. `tests/conftest.py` has it so in the tests' own processes.
"""

import os

import jax

# Only where it was measured: a flag that XLA does not know ends a process.
OPTIONS = {"xla_cpu_use_fusion_emitters": False} if jax.__version_info__[:2] == (0, 10) else {}

HARDLY_OPTIMIZED = {
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    "XLA_FLAGS": " ".join(
        [os.environ.get("XLA_FLAGS", ""), *(f"--{name}={int(on)}" for name, on in OPTIONS.items())]
    ).strip(),
}
"""What the environment of a process has besides, for it to be so there."""
