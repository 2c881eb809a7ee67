"""What a file must give: the live model's own outputs, on inputs that no one had to provide."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from kdjax.export.shapes import longest, made_up
from kdjax.types import Fields

CLOSE = 1e-5
"""Largest difference of an output, relative to the largest one, that sums in another order explain."""

TOLERANCE = 1e-4
"""Likewise where the model itself loses digits, such as a variance over few channels."""

_EXAMPLES = 3

_SHARES = (1.0, 0.6, 0.0)


class Reference:
    """A model's outputs on made-up inputs, ragged ones as long as may be and shorter.

    Args:
      predict: the model, of as many arrays as there are inputs, in their order.
      inputs: of one example.
      batch: number of examples.
      shares: of the positions that a ragged input has at most: a file is run on each.
      cases: inputs by name, in the place of those that are made up.

    Attributes:
      cases: `(inputs by name, outputs of the live model)`, [batch, ...] each.
    """

    def __init__(
        self,
        predict: Callable[..., Any],
        inputs: Fields,
        *,
        batch: int = _EXAMPLES,
        shares: Sequence[float] = _SHARES,
        cases: Sequence[dict[str, np.ndarray]] = (),
    ):
        live = jax.jit(predict)
        if not longest(inputs):
            shares = (1.0,)
        given = cases or [made_up(inputs, batch=batch, share=share) for share in shares]
        self.cases = [
            (one, [np.asarray(x) for x in jax.tree.leaves(live(*one.values()))]) for one in given
        ]

    def apart(self, run: Callable[[dict[str, np.ndarray]], Any]) -> float:
        """The largest difference of a file's outputs, relative to the largest live one of a case.

        Infinite where the shapes differ, or not the same outputs are finite.

        Args:
          run: the file, of its inputs by name; it gives one output, or all that there are.
        """
        return max(
            _apart(np.asarray(found), live)
            for inputs, outputs in self.cases
            for found, live in zip(jax.tree.leaves(run(inputs)), outputs, strict=True)
        )


def _apart(outputs: np.ndarray, live: np.ndarray) -> float:
    live = np.asarray(live, np.float64)
    finite = np.isfinite(live)
    if outputs.shape != live.shape or not np.array_equal(
        live[~finite], outputs[~finite], equal_nan=True
    ):
        return math.inf
    apart = float(np.abs(outputs[finite] - live[finite]).max(initial=0))
    largest = float(np.abs(live[finite]).max(initial=0))
    # Also of what is not finite in the file alone.
    return apart / max(largest, 1e-30) if math.isfinite(apart) else math.inf
