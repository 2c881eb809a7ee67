"""Losses of sequences whose alignment is not known: CTC, and what a teacher's frames say of it.

Outputs are of classes at each frame, of which the first, `BLANK`, is none of the symbols, as in PyTorch
and optax; symbol `i` of an alphabet is class `i + 1`.
"""

import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

BLANK = 0
"""The class of a frame that says nothing new."""


def least_frames(labels: Int[Array, "batch most"]) -> Int[Array, " batch"]:
    """Frames of the shortest path of each transcript: its symbols, and a blank between two equal ones.

    Args:
      labels: symbols, negative behind the end.
    """
    known = labels >= 0
    repeated = (labels[:, 1:] == labels[:, :-1]) & known[:, 1:]
    return known.sum(-1) + repeated.sum(-1)


def ctc(
    logits: Float[Array, "batch frames classes"],
    labels: Int[Array, "batch most"],
    mask: Bool[Array, "batch frames"] | None = None,
) -> Float[Array, " batch"]:
    """Per-example `-log p(labels)` over all paths that collapse to the labels, in nats.

    `optax.losses.ctc_loss`, but for labels that have no path, being longer than the frames: their loss
    is infinite, and sends no gradient, where optax says 100,000. Labels without a symbol have the path
    of blanks alone.

    Args:
      logits: pre-softmax scores, any float dtype (float32 inside); the first class is the blank.
      labels: symbols from 0 on, whose class is one more; negative behind the end.
      mask: frames that are no padding; None for all. What is elsewhere changes nothing, if it is finite.

    Reference: Graves et al. 2006, https://doi.org/10.1145/1143844.1143891, eq. 8.
    """
    known = labels >= 0
    if mask is None:
        mask = jnp.ones(logits.shape[:2], bool)
    found = optax.losses.ctc_loss(
        logits.astype(jnp.float32),
        1.0 - mask.astype(jnp.float32),
        jnp.where(known, labels + 1, BLANK),
        1.0 - known.astype(jnp.float32),
        blank_id=BLANK,
    )
    return jnp.where(least_frames(labels) > mask.sum(-1), jnp.inf, found)


def best_path(
    classes: Int[Array, "batch frames"], mask: Bool[Array, "batch frames"] | None = None
) -> Int[Array, "batch frames"]:
    """The symbols of one path of each example, negative behind the end.

    Args:
      classes: at each frame, such as the likeliest ones.
      mask: frames that are no padding, the first ones; None for all.
    """
    before = jnp.pad(classes[:, :-1], ((0, 0), (1, 0)), constant_values=BLANK)
    said = (classes != BLANK) & (classes != before)
    said = said if mask is None else said & mask
    frames = classes.shape[1]
    # What is not said goes into a place behind the last, which is cut off.
    at = jnp.where(said, jnp.cumsum(said, axis=-1) - 1, frames)
    found = jnp.full((len(classes), frames + 1), -1, classes.dtype)
    return jnp.put_along_axis(found, at, classes - 1, axis=-1, inplace=False)[:, :frames]


def near_symbols(
    classes: Int[Array, "batch frames"], *, around: int
) -> Bool[Array, "batch frames"]:
    """Frames that are no blank, and as many of the blanks before and behind each: symmetric selection.

    Args:
      classes: that a teacher holds likeliest at each frame.
      around: blanks that stay on each side; 0 leaves none (blank elimination).

    Reference: Hilmes et al. 2025, https://arxiv.org/abs/2506.01503.
    """
    frames = classes.shape[1]
    said = jnp.cumsum(classes != BLANK, axis=-1)
    said = jnp.pad(said, ((0, 0), (1, 0)))  # of how many frames before this one
    at = jnp.arange(frames)
    last, first = jnp.minimum(at + around + 1, frames), jnp.maximum(at - around, 0)
    return said[:, last] > said[:, first]
