"""SpecAugment: spectra without some of their bands and some of their frames, in training alone."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key


class SpecAugment(NamedTuple):
    """How much is masked.

    Attributes:
      band_masks: pieces of the scale.
      band_width: bands of a piece at most.
      frame_masks: pieces of the time.
      frame_width: frames of a piece at most.
      frame_share: of the frames of a recording, in a piece at most.
    """

    band_masks: int
    band_width: int
    frame_masks: int
    frame_width: int
    frame_share: float = 1.0


def spec_augmented(
    key: Key[Array, ""],
    spectra: Float[Array, "batch frames bands"],
    length: Int[Array, " batch"] | None,
    how: SpecAugment,
) -> Float[Array, "batch frames bands"]:
    """Spectra with zeros in some bands and frames: normalised ones have their mean there.

    A piece has from no band to `band_width`, each number as likely as the next, and begins anywhere; so
    it is of frames, within the length of a recording. Pieces may lie on each other. Time is not warped.

    Args:
      key: of the draws.
      spectra: of each recording.
      length: frames that each has, at least 1; None for all.
      how: see `SpecAugment`.

    Reference: Park et al. 2019, https://arxiv.org/abs/1904.08779, sec. 2.
    """
    count, frames, bands = spectra.shape
    of_bands, of_frames = jax.random.split(key)
    ends = jnp.full(count, frames) if length is None else length
    most = jnp.floor(how.frame_share * ends.astype(jnp.float32)).astype(ends.dtype)
    band = _pieces(
        of_bands,
        how.band_masks,
        jnp.full(count, min(how.band_width, bands)),
        jnp.full(count, bands),
        places=bands,
    )
    frame = _pieces(
        of_frames, how.frame_masks, jnp.minimum(how.frame_width, most), ends, places=frames
    )
    return jnp.where(band[:, None, :] | frame[:, :, None], 0.0, spectra)


def _pieces(
    key: Key[Array, ""],
    count: int,
    widest: Int[Array, " batch"],
    ends: Int[Array, " batch"],
    *,
    places: int,
) -> Bool[Array, "batch place"]:
    """Which places are in one of `count` pieces, of `widest` places at most and before the end."""
    unit = jax.random.uniform(key, (2, len(ends), count))
    width = _below(unit[0], widest[:, None] + 1)
    begin = _below(unit[1], ends[:, None] - width + 1)
    place = jnp.arange(places)[None, None]
    inside = (place >= begin[..., None]) & (place < (begin + width)[..., None])
    return inside.any(1)


def _below(unit: Float[Array, "*shape"], count: Int[Array, "..."]) -> Int[Array, "*shape"]:
    """Uniform in `0 .. count - 1`, from `unit` uniform in [0, 1)."""
    return jnp.minimum(jnp.floor(unit * count).astype(jnp.int32), count - 1)
