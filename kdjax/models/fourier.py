"""The Fourier transform of a frame of samples as one product, and what its kernel is made of."""

import functools
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64

PREEMPHASIS = 0.97
"""Of Kaldi: how much of the sample before is taken from each."""


def size_of(frame: int, convention: str) -> int:
    """Points of the transform: Kaldi's is the next power of two."""
    return 1 << (frame - 1).bit_length() if convention == "kaldi" else frame


class Turn(NamedTuple):
    """What the Fourier kernel of a frame is made of, see `fourier`.

    Attributes:
      cosine: of a whole turn, at as many places as the transform has points.
      sine: likewise, with its sign turned.
      window: of each sample of a frame.
      preemphasis: how much of a sample is taken from the next one, after the mean of all is taken from
        each; 0 for neither.
    """

    cosine: Float64[np.ndarray, " size"]
    sine: Float64[np.ndarray, " size"]
    window: Float64[np.ndarray, " frame"]
    preemphasis: float


@functools.lru_cache(maxsize=16)
def turn(frame: int, convention: str) -> Turn:
    """That of a frame of so many samples."""
    size, at = size_of(frame, convention), np.arange(frame)
    angle = 2.0 * np.pi * np.arange(size) / size
    if convention != "kaldi":
        window, preemphasis = 0.5 - 0.5 * np.cos(2.0 * np.pi * at / frame), 0.0
    else:
        window = (0.5 - 0.5 * np.cos(2.0 * np.pi * at / (frame - 1))) ** 0.85
        preemphasis = PREEMPHASIS
    return Turn(np.cos(angle), -np.sin(angle), window, preemphasis)


@functools.lru_cache(maxsize=16)
def fourier(frame: int, convention: str) -> Float64[np.ndarray, "frame twice_bins"]:
    """The spectrum of a frame as a product: real parts of all bins, then the imaginary ones.

    A row of the product is the window times `exp(-2 pi i n k / size)`. What is done to the samples before
    is done to the kernel: of each row so much of the next one is taken as of a sample goes into the next
    one, and then from all of them their mean.
    """
    said = turn(frame, convention)
    size = len(said.cosine)
    angle = np.outer(np.arange(frame), np.arange(size // 2 + 1)) % size
    kernel = np.concatenate([said.cosine[angle], said.sine[angle]], axis=1) * said.window[:, None]
    if said.preemphasis:
        less = np.concatenate([kernel[1:], np.zeros_like(kernel[:1])])
        less[0] += kernel[0]  # the sample before the first one is the first one
        kernel = kernel - said.preemphasis * less
        kernel -= kernel.mean(0)
    return kernel
