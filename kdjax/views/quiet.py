"""The pauses of recordings, from which noise is drawn: how a set sounds where nobody speaks."""

from collections.abc import Iterable, Iterator

import numpy as np
from jaxtyping import Float32, Int16

_FRAME_SECONDS = 0.02
_SILENCE = 1.0
"""Mean square of a sample below which a frame is digital silence, and no noise of a room."""

_MOST_SECONDS = 20.0
"""Of pauses that are kept."""


def pauses(
    recordings: Iterable[Int16[np.ndarray, " _"]], *, rate: int, below: float, shortest: float
) -> Float32[np.ndarray, " n"]:
    """The pauses of recordings, end to end, 20 s at most; each has the mean 0 and the root mean square 1.

    A recording is cut into frames of 20 ms. A pause is a run of frames whose energy is `below` decibels,
    or more, less than that of the loudest frame of its recording, and that are no digital silence (a mean
    square below 1, in units of a sample).

    Args:
      recordings: 16-bit samples of each, without padding, looked at in this order.
      rate: samples a second.
      below: decibels.
      shortest: seconds of a pause; shorter runs are none.

    Returns:
      The samples; none where there is no pause.
    """
    kept, room = [], round(_MOST_SECONDS * rate)
    for samples in recordings:
        for own in _runs(samples, rate, below, shortest):
            kept.append(own[:room])
            room -= len(kept[-1])
            if not room:
                return np.concatenate(kept)
    return np.concatenate(kept) if kept else np.zeros(0, np.float32)


def _runs(
    samples: Int16[np.ndarray, " _"], rate: int, below: float, shortest: float
) -> Iterator[Float32[np.ndarray, " _"]]:
    size = max(1, round(_FRAME_SECONDS * rate))
    frames = samples[: len(samples) // size * size].reshape(-1, size).astype(np.float64)
    if not len(frames):
        return
    energy = (frames * frames).mean(1)
    quiet = (energy >= _SILENCE) & (energy * 10.0 ** (below / 10.0) <= energy.max())
    edges = np.diff(np.concatenate([[0], quiet.astype(np.int8), [0]]))
    begins, ends = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    for begin, end in zip(begins, ends, strict=True):
        own = frames[begin:end].reshape(-1)
        own = own - own.mean()
        power = (own * own).mean()
        if len(own) >= shortest * rate and power > 0:
            yield (own / np.sqrt(power)).astype(np.float32)
