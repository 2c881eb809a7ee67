"""What a file must give: the live model's own logits, on images that no one had to provide."""

import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

CLOSE = 1e-5
"""Largest difference of a logit, relative to the largest one, that sums in another order explain."""

TOLERANCE = 1e-4
"""Likewise where the model itself loses digits, such as a variance over few channels."""

_IMAGES = 3


class Reference:
    """A model's logits on made-up images.

    Args:
      predict: the model.
      image_shape: of a raw image.
      batch: number of images.

    Attributes:
      images: uint8 [batch, *image_shape], random bytes, always the same ones.
    """

    def __init__(
        self,
        predict: Callable[..., Any],
        image_shape: tuple[int, int, int],
        *,
        batch: int = _IMAGES,
    ):
        self.images = np.random.default_rng(0).integers(
            256, size=(batch, *image_shape), dtype=np.uint8
        )
        self.logits = np.asarray(jax.jit(predict)(self.images))

    def apart(self, logits: np.ndarray) -> float:
        """The largest difference of a file's logits, relative to the largest live one.

        Infinite where the shapes differ, or not the same logits are finite.
        """
        live = np.asarray(self.logits, np.float64)
        finite = np.isfinite(live)
        if logits.shape != live.shape or not np.array_equal(
            live[~finite], logits[~finite], equal_nan=True
        ):
            return math.inf
        apart = float(np.abs(logits[finite] - live[finite]).max(initial=0))
        largest = float(np.abs(live[finite]).max(initial=0))
        # Also of what is not finite in the file alone.
        return apart / max(largest, 1e-30) if math.isfinite(apart) else math.inf
