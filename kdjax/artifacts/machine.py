"""What a stage was run on: the devices, and the versions of what its result depends on."""

import os
import platform
import re
from importlib import metadata
from pathlib import Path

import jax

from kdjax import alone, heap


def device() -> str:
    """The devices; for a CPU also its name and how many cores this process may use."""
    found = f"{jax.device_count()} x {jax.devices()[0].device_kind}"
    if jax.default_backend() != "cpu":
        return found
    try:
        said = Path("/proc/cpuinfo").read_text(errors="replace")
    except OSError:
        said = ""
    model = re.search(r"^model name\s*: (.+)$", said, re.MULTILINE)
    name = model[1] if model else platform.processor() or platform.machine()
    n = alone.cores()
    return f"{found} ({name}, {n} core{'' if n == 1 else 's'})"


def versions() -> dict[str, str]:
    """Of what a result or its speed depends on, with the flags of XLA where there are any."""
    packages = ("kdjax", "jax", "flax", "optax", "orbax-checkpoint", "numpy")
    found = {name: _version(name) for name in packages}
    flags = os.environ.get("XLA_FLAGS")
    return {
        "python": platform.python_version(),
        **found,
        "backend": jax.default_backend(),
        **({"XLA_FLAGS": flags} if flags else {}),
        **({"freed memory": "kept"} if heap.is_kept() else {}),
    }


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"  # run from a checkout
