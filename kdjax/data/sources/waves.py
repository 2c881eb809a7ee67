"""Samples of recordings: read from files, at another rate, of another length."""

import math
import os
import wave
from typing import NamedTuple

import numpy as np
from etils import epy
from jaxtyping import Int16

from kdjax.data.sources.options import shown
from kdjax.types import BadInput

with epy.lazy_imports():  # slow to import, and other sets do without
    from scipy import signal

WAVES, OTHERS = (".wav", ".wave"), (".flac", ".ogg", ".oga")
"""Endings of files that are read, those of the second kind by `soundfile`."""

MOST_RATE = 768_000
_CLIPPED = 8
"""Samples at full scale, one behind the other, that no sound has of itself."""


class Recording(NamedTuple):
    """One of them.

    Attributes:
      key: bytes that name it among the others.
      samples: as they were recorded.
      rate: samples a second.
      where: for messages.
    """

    key: bytes
    samples: Int16[np.ndarray, " n"]
    rate: int
    where: str


def read_file(path: str) -> Recording:
    """A recording of one channel.

    Raises:
      BadInput: it cannot be read, is no sound, is cut off, or has several channels.
    """
    at = shown(path)
    if path.lower().endswith(OTHERS):
        samples, rate = _by_soundfile(path)
    else:
        samples, rate = _wave(path)
    if samples.ndim != 1:
        raise BadInput(
            "root", f"{at} has {samples.shape[1]} channels", "make one of them, such as their mean"
        )
    return Recording(os.fsencode(path), samples, rate, at)


def _wave(path: str) -> tuple[Int16[np.ndarray, "n *channels"], int]:
    at = shown(path)
    try:
        with wave.open(path, "rb") as file:
            channels, width, rate = file.getnchannels(), file.getsampwidth(), file.getframerate()
            declared, content = file.getnframes(), file.readframes(file.getnframes())
    except (wave.Error, EOFError, OSError) as error:
        said = " ".join(str(error).split()) or "it ends too soon"
        raise BadInput(
            "root",
            f"{at} is no WAV file of integers ({said})",
            "convert it to 16 bits, or remove it",
        ) from None
    if not 1 <= rate <= MOST_RATE or width not in (1, 2, 3, 4) or channels < 1:
        raise BadInput(
            "root",
            f"{at} has {8 * width} bits and {rate} samples a second",
            "convert it to 16 bits",
        )
    if len(content) != declared * channels * width:
        have = len(content) // max(1, channels * width)
        raise BadInput(
            "root", f"{at} is cut off: {have} of {declared} samples are there", "copy it again"
        )
    samples = _as_int16(content, width)
    return (samples if channels == 1 else samples.reshape(-1, channels)), rate


def _as_int16(content: bytes, width: int) -> Int16[np.ndarray, " n"]:
    """Little-endian integers of so many bytes; those of one byte are unsigned."""
    if width == 2:
        return np.frombuffer(content, "<i2").astype(np.int16)
    if width == 1:
        return ((np.frombuffer(content, np.uint8).astype(np.int16) - 128) * 256).astype(np.int16)
    padded = np.zeros((len(content) // width, 4), np.uint8)
    padded[:, 4 - width :] = np.frombuffer(content, np.uint8).reshape(-1, width)
    whole = padded.view("<i4")[:, 0].astype(np.int64)
    return np.clip((whole + 2**15) >> 16, -(2**15), 2**15 - 1).astype(np.int16)


def _by_soundfile(path: str) -> tuple[Int16[np.ndarray, "n *channels"], int]:
    at = shown(path)
    try:
        import soundfile
    except ImportError:
        raise BadInput(
            "root", f"{at}: FLAC and OGG need soundfile", "pip install 'kdjax[speech]'"
        ) from None
    try:
        samples, rate = soundfile.read(path, dtype="int16")
    except (RuntimeError, OSError) as error:
        said = " ".join(str(error).split())
        raise BadInput("root", f"{at} cannot be read ({said})", "copy it again") from None
    return samples, int(rate)


def resampled(samples: Int16[np.ndarray, " n"], rate: int, wanted: int) -> Int16[np.ndarray, " m"]:
    """At another rate, rounded and held within 16 bits; as they are at their own."""
    if rate == wanted:
        return samples
    common = math.gcd(rate, wanted)
    found = signal.resample_poly(samples.astype(np.float64), wanted // common, rate // common)
    return np.clip(np.rint(found), -(2**15), 2**15 - 1).astype(np.int16)


def fitted(samples: Int16[np.ndarray, " n"], length: int) -> Int16[np.ndarray, " length"]:
    """The middle of what is longer; zeros behind what is shorter."""
    begin = max(0, len(samples) - length) // 2
    cut = samples[begin : begin + length]
    return np.pad(cut, (0, length - len(cut)))


def is_clipped(samples: Int16[np.ndarray, " n"]) -> bool:
    """Whether so many samples in a row are at one end of the scale that the rest was cut off."""
    for end in (2**15 - 1, -(2**15)):
        at = np.flatnonzero(samples == end)
        if len(at) >= _CLIPPED and (at[_CLIPPED - 1 :] - at[: 1 - _CLIPPED] == _CLIPPED - 1).any():
            return True
    return False
