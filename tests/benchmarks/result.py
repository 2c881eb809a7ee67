"""How the benchmarks say what they measured: one JSON object, with where and by what command."""

import json
import platform
import sys
from pathlib import Path
from typing import Any

import jax

from kdjax.evaluate import Latency


def show(measured: dict[str, Any]) -> None:
    """Prints what was measured below the command, the device and the versions."""
    command = ["python", f"tests/benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]]
    about = {
        "command": " ".join(command),
        "device": jax.devices()[0].device_kind,
        "jax": jax.__version__,
        "python": platform.python_version(),
    }
    json.dump({**about, **measured}, sys.stdout, indent=1)
    print()


def ratios(times: dict[str, Latency], base: str) -> dict[str, Any]:
    """The medians of interleaved calls, and their ratios to one of them."""
    p50 = {call: time.ms_p50 for call, time in times.items()}
    return {
        "ms_p50": p50,
        "ratio": {call: ms / p50[base] for call, ms in p50.items()},
        "base": base,
        "repeats": min(time.repeats for time in times.values()),
    }
