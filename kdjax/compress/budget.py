"""What the file at the end may cost, as it is written on the command line."""

import math
import re
from typing import Literal, NamedTuple

from kdjax.types import BadInput

_UNITS = {"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}


class Budget(NamedTuple):
    """Of the file at the end.

    Attributes:
      kind: `bytes` of the file, `ms` of a call with one example, or a `share` of the bytes that the
        parameters of the network have in float32 that one begins with.
      value: the most.
    """

    kind: Literal["bytes", "ms", "share"]
    value: float

    def __str__(self) -> str:
        match self.kind:
            case "bytes":
                return f"{self.value / 1000:g} kB"
            case "ms":
                return f"{self.value:g} ms"
            case "share":
                return f"{self.value:g} x"


def parsed(text: str) -> Budget:
    """`200kB`, `1.5MB`, `512KiB`, `2ms`, `0.5x`.

    Raises:
      BadInput: it is none of these, or not above 0.
    """
    found = re.fullmatch(r"\s*([0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]+)?)\s*([A-Za-z]+)\s*", text)
    unit = found[2].lower() if found else ""
    value = float(found[1]) if found else 0.0
    if unit in _UNITS and 0 < value < math.inf:
        return Budget("bytes", value * _UNITS[unit])
    if unit in ("ms", "us", "s") and 0 < value < math.inf:
        return Budget("ms", value * {"us": 1e-3, "ms": 1.0, "s": 1e3}[unit])
    if unit == "x" and 0 < value <= 1:
        return Budget("share", value)
    raise BadInput("--budget", f"{text!r}", "write a size (200kB), a time (2ms) or a share (0.5x)")
