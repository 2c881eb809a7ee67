"""The resizing of Pillow, to the bit, as exact arithmetic on the device and in files.

Pillow resizes 8-bit pixels in whole numbers: a window of weights in 1/2^22 for each row of the result, a
sum, a shift, and what is beyond 0 to 255 is clipped; along the rows, then down the columns, or, since
Pillow 13, the other way round where that is less work. The same sums are made here of float32 that holds
whole numbers below 2^24, which add up alike in any order: each weight has a coarse and a fine part.
"""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from kdjax.types import BadInput, Interpolation
from kdjax.views import geometry

_BITS = 22
"""Of the fraction of a weight."""

_FINE = {1: 11, 2: 7}
"""Bits of each fine part of a weight, by how many fine parts there are."""

_MOST_TAPS = 1024
"""For which two fine parts are enough: `1024 * 255 * 2^6` is below 2^24."""


class _Filter(NamedTuple):
    """How far a filter reaches, in pixels, and its height at a distance."""

    support: float
    height: Callable[[float], float]


def _sinc(x: float) -> float:
    return 1.0 if x == 0.0 else math.sin(x * math.pi) / (x * math.pi)


def _bicubic(x: float) -> float:
    x, a = abs(x), -0.5
    if x < 1.0:
        return ((a + 2.0) * x - (a + 3.0)) * x * x + 1
    return (((x - 5) * x + 8) * x - 4) * a if x < 2.0 else 0.0


def _hamming(x: float) -> float:
    x = abs(x)
    return _sinc(x) * (0.54 + 0.46 * math.cos(x * math.pi)) if x < 1.0 else 0.0


_FILTERS = {
    "box": _Filter(0.5, lambda x: 1.0 if -0.5 < x <= 0.5 else 0.0),
    "bilinear": _Filter(1.0, lambda x: max(0.0, 1.0 - abs(x))),
    "hamming": _Filter(1.0, _hamming),
    "bicubic": _Filter(2.0, _bicubic),
    "lanczos": _Filter(3.0, lambda x: _sinc(x) * _sinc(x / 3) if -3.0 <= x < 3.0 else 0.0),
}


@functools.cache
def _weights(interpolation: str, side: int, out: int) -> np.ndarray:
    """[side, out] whole numbers in 1/2^22, as Pillow's `precompute_coeffs` finds them."""
    kind, scale = _FILTERS[interpolation], side / out
    stretch = max(scale, 1.0)
    reach, per_pixel = kind.support * stretch, 1.0 / stretch
    found = np.zeros((side, out), np.int64)
    for at in range(out):
        centre = (at + 0.5) * scale
        low = max(0, int(centre - reach + 0.5))
        high = min(side, int(centre + reach + 0.5))
        heights = [kind.height((tap - centre + 0.5) * per_pixel) for tap in range(low, high)]
        total = 0.0
        for height in heights:
            total += height
        for tap, height in enumerate(heights, low):
            share = (height / total if total else height) * (1 << _BITS)
            found[tap, at] = int(share - 0.5) if share < 0 else int(share + 0.5)
    return found


@functools.cache
def _places(side: int, out: int) -> np.ndarray:
    """[out]: the pixel that stands for each without interpolation."""
    step = side / out
    return np.cumsum([step * 0.5, *(step,) * (out - 1)]).astype(np.int64)


def _pass(
    image: Float[Array, "height width channel"], axis: int, out: int, interpolation: str
) -> Float[Array, "rows columns channel"]:
    """One axis of an image of whole numbers from 0 to 255."""
    side = image.shape[axis]
    if side == out:
        return image
    if interpolation == "nearest":
        return jnp.take(image, _places(side, out), axis=axis)
    weights = _weights(interpolation, side, out)
    taps = int(np.count_nonzero(weights, axis=0).max())
    if taps > _MOST_TAPS:
        raise BadInput(
            "size", f"{side} pixels become {out}: one is the mean of {taps}", "give more"
        )
    parts = 1 if taps <= 64 else 2
    base = 1 << _FINE[parts]
    fine = []
    for _ in range(parts):
        coarse = (weights + base // 2) // base
        fine.append(weights - coarse * base)
        weights = coarse
    carried = jnp.zeros(())
    for each in fine:
        carried = jnp.floor((_sums(image, axis, each) + carried) / base)
    left = 1 << (_BITS - parts * _FINE[parts])
    total = jnp.floor((_sums(image, axis, weights) + carried + left // 2) / left)
    return jnp.clip(total, 0.0, 255.0)


def _sums(image: Array, axis: int, weights: np.ndarray) -> Array:
    """Exact, see above."""
    how = "hwc,ht->twc" if axis == 0 else "hwc,wl->hlc"
    # HIGHEST, as TF32 or bfloat16 would not hold 12 bits.
    taps = jnp.asarray(weights, jnp.float32)
    return jnp.einsum(how, image, taps, precision=lax.Precision.HIGHEST)


def resize(
    image: geometry.Image, *, size: geometry.Size, interpolation: Interpolation
) -> Float[Array, "rows columns channel"]:
    """The whole image at another size, as `PIL.Image.resize` has it, to the bit.

    Args:
      image: in [0, 1]; taken to the nearest of the 256 levels of 8 bits, on which uint8 lies exactly.
      size: height and width of the result in pixels, or the side of a square.
      interpolation: Pillow's, with its antialiasing; `nearest` has none.

    Returns:
      Pixels in [0, 1], each on one of the 256 levels.

    Raises:
      BadInput: `size` is not positive, or is less than about a three hundredth of the image's.

    Reference: Pillow 13, src/libImaging/Resample.c.
    """
    tall, wide = geometry.sides(size)
    level = jnp.clip(jnp.round(image * 255.0), 0.0, 255.0)
    lower, narrower = image.shape[0] - tall, image.shape[1] - wide
    down_first = lower > max(0, 2 * narrower)
    for axis in (0, 1) if down_first else (1, 0):
        level = _pass(level, axis, (tall, wide)[axis], interpolation)
    return level / 255.0
