"""Feature maps of one size."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from kdjax.losses.rows import contract


def _windows(size: int, wanted: int) -> Float[np.ndarray, "wanted size"]:
    """Row `i` averages `[floor(i size / wanted), ceil((i + 1) size / wanted))`."""
    place, window = np.arange(size)[None, :], np.arange(wanted)[:, None]
    inside = (place >= window * size // wanted) & (place < -(-(window + 1) * size // wanted))
    return (inside / inside.sum(axis=1, keepdims=True)).astype(np.float32)


def adaptive_average_pool(
    maps: Float[Array, "batch height width channel"], size: tuple[int, int]
) -> Float[Array, "batch out_height out_width channel"]:
    """Means over `size` windows that cover each map, in float32.

    The windows are those of `torch.nn.functional.adaptive_avg_pool2d`: where `size` does not divide
    the map they overlap and differ in length by one.

    Args:
      maps: any float dtype (float32 inside).
      size: height and width of the result.
    """
    maps = maps.astype(jnp.float32)
    if maps.shape[1:3] == tuple(size):
        return maps
    rows, columns = (
        jnp.asarray(_windows(side, to)) for side, to in zip(maps.shape[1:3], size, strict=True)
    )
    return contract("bhwc,ih,jw->bijc", maps, rows, columns)


def to_smaller(
    a: Float[Array, "batch height width channel"],
    b: Float[Array, "batch other_height other_width other_channel"],
) -> tuple[
    Float[Array, "batch out_height out_width channel"],
    Float[Array, "batch out_height out_width other_channel"],
]:
    """Both in float32; the one with the longer side pooled to the shorter side of the other."""
    size = min(a.shape[1], b.shape[1]), min(a.shape[2], b.shape[2])
    return adaptive_average_pool(a, size), adaptive_average_pool(b, size)
