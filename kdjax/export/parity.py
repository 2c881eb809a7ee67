"""What a file must give: the live model's own outputs, on inputs that no one had to provide."""

import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from kdjax.types import Fields

CLOSE = 1e-5
"""Largest difference of an output, relative to the largest one, that sums in another order explain."""

TOLERANCE = 1e-4
"""Likewise where the model itself loses digits, such as a variance over few channels."""

_EXAMPLES = 3


class Reference:
    """A model's outputs on made-up inputs.

    Args:
      predict: the model, of as many arrays as there are inputs, in their order.
      inputs: of one example.
      batch: number of examples.

    Attributes:
      inputs: [batch, ...] each, by name; see `Field.made_up`.
      outputs: of the live model, [batch, ...].
    """

    def __init__(
        self,
        predict: Callable[..., Any],
        inputs: Fields,
        *,
        batch: int = _EXAMPLES,
    ):
        self.inputs = {name: field.made_up(batch) for name, field in inputs.items()}
        self.outputs = np.asarray(jax.jit(predict)(*self.inputs.values()))

    def apart(self, outputs: np.ndarray) -> float:
        """The largest difference of a file's outputs, relative to the largest live one.

        Infinite where the shapes differ, or not the same outputs are finite.
        """
        live = np.asarray(self.outputs, np.float64)
        finite = np.isfinite(live)
        if outputs.shape != live.shape or not np.array_equal(
            live[~finite], outputs[~finite], equal_nan=True
        ):
            return math.inf
        apart = float(np.abs(outputs[finite] - live[finite]).max(initial=0))
        largest = float(np.abs(live[finite]).max(initial=0))
        # Also of what is not finite in the file alone.
        return apart / max(largest, 1e-30) if math.isfinite(apart) else math.inf
