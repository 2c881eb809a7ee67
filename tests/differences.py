"""Slopes of a float64 derivation, to hold a gradient against."""

from collections.abc import Callable

import numpy as np


def slopes(loss: Callable[[np.ndarray], np.ndarray], x, *, step: float = 1e-5) -> np.ndarray:
    """Central differences of `loss(x).sum()`, one entry of `x` at a time.

    Args:
      loss: float64 array -> losses, or one loss.
      x: where to take them.
      step: what each entry moves by, to either side.
    """
    x = np.array(x, np.float64)
    found = np.empty_like(x)
    for place in np.ndindex(x.shape):
        moved = [x.copy(), x.copy()]
        moved[0][place] += step
        moved[1][place] -= step
        above, below = (np.sum(loss(z)) for z in moved)
        found[place] = (above - below) / (2 * step)
    return found
