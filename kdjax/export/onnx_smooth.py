"""Values that are divided before they are rounded in the call, see `kdjax.quant.smooth`."""

from typing import Any

import numpy as np
from jaxtyping import Float

MARK = ".smooth"
"""Of the name of such a value, in a file."""


def divided(file: Any, before: list[Any], value: str, divisors: Float[np.ndarray, " in"]) -> str:
    """The value divided, once for all that do it alike.

    Args:
      file: that is rewritten, see `kdjax.export.onnx_integers`.
      before: what the operator is to be among.
      value: its name.
      divisors: along its last axis.
    """
    from onnx import helper

    by = np.float32(1.0) / divisors.astype(np.float32)
    known = file.divided.setdefault(value, [])
    for number, other in enumerate(known):
        if np.array_equal(other, by):
            return f"{value}{MARK}{number or ''}"
    result = f"{value}{MARK}{len(known) or ''}"
    known.append(by)
    before.append(helper.make_node("Mul", [value, file.keep(f"{result}.by", by)], [result]))
    return result
