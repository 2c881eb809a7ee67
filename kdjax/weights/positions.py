"""Learned positions for another number of patches, interpolated as their source does."""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from kdjax.weights.rules import Shape, Transform

_SHARPNESS = -0.75
"""Of the cubic where nothing is smoothed: torch's, and OpenCV's."""

_SHARPNESS_SMOOTHED = -0.5
"""Of the cubic where it is: Pillow's, and Keys'."""


def positions(
    *,
    before: int,
    grid: tuple[int, int] | None,
    antialias: bool,
    offset: float = 0.0,
) -> Transform:
    """The positions of tokens [1, before + patches, dim], those of the patches at another size.

    timm smooths (`antialias=True`), transformers does not. The first DINOv2, and DINO, ask for a scale of
    `(side + 0.1) / side there` (`offset=0.1`), with which torch finds other places than with the sizes.
    Positions there are of a square of patches. What is written are those that the network has.

    Args:
      before: tokens before those of the patches that have a position, such as that of a class.
      grid: patches of the images here, down and across; None for a square.
      antialias: smooth where there are fewer patches here.
      offset: see above.
    """

    def into(found: Sequence[np.ndarray], shapes: Sequence[Shape]) -> list[np.ndarray]:
        given, wanted = found[0], shapes[0]
        if given.ndim != 3 or given.shape[-1] != wanted[-1]:
            raise ValueError(f"{given.shape} for {wanted}")
        here = _square(wanted[1] - before) if grid is None else grid
        there = _square(given.shape[1] - before)
        if math.prod(here) != wanted[1] - before:
            raise ValueError(f"{wanted[1] - before} patches are no {here}")
        if here == there:
            return [given]
        patches = given[0, before:].reshape(*there, -1)
        moved = resized(patches, here, antialias=antialias, offset=offset)
        return [np.concatenate([given[0, :before], moved.reshape(-1, given.shape[-1])])[None]]

    return Transform(into, lambda found: list(found))


def _square(patches: int) -> tuple[int, int]:
    side = math.isqrt(max(patches, 0))
    if side * side != patches or not side:
        raise ValueError(f"{patches} patches are no square")
    return side, side


def resized(
    grid: Float[np.ndarray, "height width dim"],
    size: tuple[int, int],
    *,
    antialias: bool,
    offset: float = 0.0,
) -> Float[np.ndarray, "rows columns dim"]:
    """A grid at another size by cubic interpolation, as `torch.nn.functional.interpolate` has it.

    That is with `mode="bicubic", align_corners=False`.

    Args:
      grid: float32.
      size: rows and columns of the result.
      antialias: as torch's argument of this name.
      offset: added to the sides of the result in `scale_factor`; 0 to give the size alone.
    """
    for axis, side in enumerate(size):
        weights = _weights(grid.shape[axis], side, antialias=antialias, offset=offset)
        grid = np.moveaxis(np.tensordot(weights, grid.astype(np.float64), (1, axis)), 0, axis)
    return grid.astype(np.float32)


def _weights(
    given: int, wanted: int, *, antialias: bool, offset: float
) -> Float[np.ndarray, "wanted given"]:
    """What each place of the result takes of each that is given."""
    scale = given / (wanted + offset)
    if antialias:
        width = max(scale, 1.0)
        center = (np.arange(wanted)[:, None] + 0.5) * scale
        places = np.arange(given)[None, :]
        inside = places >= np.maximum(np.trunc(center - 2 * width + 0.5), 0)
        inside &= places < np.minimum(np.trunc(center + 2 * width + 0.5), given)
        found = _cubic((places - center + 0.5) / width, _SHARPNESS_SMOOTHED) * inside
        return found / found.sum(axis=1, keepdims=True)
    center = (np.arange(wanted) + 0.5) * scale - 0.5
    first = np.floor(center)
    found = np.zeros((wanted, given))
    for tap in range(-1, 3):
        place = np.clip(first + tap, 0, given - 1).astype(int)
        # Places beyond the edge are the edge.
        np.add.at(found, (np.arange(wanted), place), _cubic(center - first - tap, _SHARPNESS))
    return found


def _cubic(distance: Float[np.ndarray, "..."], a: float) -> Float[np.ndarray, "..."]:
    """The convolution kernel of Keys 1981, https://doi.org/10.1109/TASSP.1981.1163711, eq. 4."""
    x = np.abs(distance)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = a * (((x - 5) * x + 8) * x - 4)
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))
