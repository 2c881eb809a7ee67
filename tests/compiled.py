"""How programs are compiled that a test runs once or few times: XLA need not try hard for them.

Without LLVM's optimizations, without XLA's newer code for what it fuses, and with a program's code in
one module of LLVM's instead of 32 that are made side by side, a train step is compiled in a fifth of
the time. `tests/conftest.py` has it so in the tests' own processes.
"""

import os

import jax

# Only where it was measured: a flag that XLA does not know ends a process.
OPTIONS = (
    {"xla_cpu_use_fusion_emitters": False, "xla_cpu_parallel_codegen_split_count": 1}
    if jax.__version_info__[:2] == (0, 10)
    else {}
)

HARDLY_OPTIMIZED = {
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    "XLA_FLAGS": " ".join(
        [
            os.environ.get("XLA_FLAGS", ""),
            *(f"--{name}={int(value)}" for name, value in OPTIONS.items()),
        ]
    ).strip(),
}
"""What the environment of a process has besides, for it to be so there."""
