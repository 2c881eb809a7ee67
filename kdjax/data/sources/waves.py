"""Samples of recordings: read from files, at another rate, of another length."""

import io
import math
import os
import struct
from typing import NamedTuple

import numpy as np
from etils import epy
from jaxtyping import Int16, Shaped

from kdjax.data.sources.options import shown
from kdjax.types import BadInput

with epy.lazy_imports():  # slow to import, and other sets do without
    from scipy import signal

WAVES, OTHERS = (".wav", ".wave"), (".flac", ".ogg", ".oga", ".opus")
"""Endings of files that are read, those of the second kind by `soundfile`."""

UNREAD = (
    *(".mp3", ".m4a", ".aac", ".wma", ".amr", ".aiff", ".aif", ".aifc", ".au", ".caf", ".sph"),
    *(".w64", ".rf64", ".ape", ".wv"),
)
"""Endings of other sounds."""

MOST_RATE = 768_000
_INTEGERS, _FLOATS, _EXTENSIBLE = 1, 3, 0xFFFE
"""Kinds of a WAV file; the last says which of the others further behind."""

_WIDTHS = {_INTEGERS: (1, 2, 3, 4), _FLOATS: (4, 8)}
"""Bytes of a sample of each."""

_ENDLESS = 2**32 - 1
"""Bytes that a program says which does not know."""

_MOST_FLOAT = 16.0
"""Times full scale, 24 decibels above it: beyond that floats have another scale."""

_CLIPPED = 8
"""Samples at full scale, one behind the other, that no sound has of itself."""

_FULL = 127 * 256
"""The least full scale: that of 8 bits."""


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


class _Unread(Exception):
    """What is wrong with a file, and what to do."""


_SAVE = "convert it to 16 bits, or remove it"
_AGAIN = "copy it again"


def read_file(path: str) -> Recording:
    """A recording of one channel: integers of more than 16 bits are rounded, floats have 1 as full scale.

    What is beyond the ends of 16 bits is held there.

    Raises:
      BadInput: it cannot be read, is no sound, is cut off, or has several channels.
    """
    at = shown(path)
    others = path.lower().endswith(OTHERS)
    try:
        with open(path, "rb") as file:
            content = file.read()
        samples, rate = _by_soundfile(content, at) if others else _wave(content)
    except OSError as error:
        raise BadInput("root", f"{at} cannot be read ({error.strerror})", _AGAIN) from None
    except _Unread as error:
        fault, mend = error.args
        raise BadInput("root", f"{at} {fault}", mend) from None
    if not 1 <= rate <= MOST_RATE:
        raise BadInput("root", f"{at} has {rate} samples a second", _SAVE)
    if samples.ndim != 1:
        raise BadInput(
            "root", f"{at} has {samples.shape[1]} channels", "make one of them, such as their mean"
        )
    return Recording(os.fsencode(path), samples, rate, at)


def _wave(content: bytes) -> tuple[Int16[np.ndarray, "n *channels"], int]:
    """The samples of a WAV file, and how many a second.

    `wave` of Python 3.11 takes neither floats nor the header of more than 16 bits that most programs
    write, later ones take the latter.
    """
    layout, samples, declared = _chunks(content)
    kind, channels, rate, _, _, bits = struct.unpack_from("<HHIIHH", layout)
    if kind == _EXTENSIBLE and len(layout) >= 26:
        kind = int.from_bytes(layout[24:26], "little")
    width = (bits + 7) // 8
    if not channels or width not in _WIDTHS.get(kind, ()):
        raise _Unread(
            f"is a WAV file of kind {kind} with {bits} bits and {channels} channels, and neither of 8 to "
            "32 bits nor of floats",
            _SAVE,
        )
    of_each, have = channels * width, len(samples) // (channels * width)
    if declared == _ENDLESS:
        raise _Unread("does not say how long it is, as a pipe has it", "convert it, or remove it")
    if len(samples) < declared:
        raise _Unread(f"is cut off: {have} of {declared // of_each} samples are there", _AGAIN)
    samples = samples[: have * of_each]
    if kind == _FLOATS:
        found = _of_floats(np.frombuffer(samples, f"<f{width}"))
    else:
        found = _as_int16(samples, width)
    return (found if channels == 1 else found.reshape(-1, channels)), rate


def _chunks(content: bytes) -> tuple[bytes, bytes, int]:
    """What a WAV file says of its samples, these, and the bytes that it says they are."""
    if content[:4] != b"RIFF" or content[8:12] != b"WAVE":
        raise _Unread("is no WAV file" if content else "is empty: it has no bytes", _SAVE)
    at, layout = 12, b""
    while at + 8 <= len(content):
        name, size = content[at : at + 4], int.from_bytes(content[at + 4 : at + 8], "little")
        own = content[at + 8 : at + 8 + size]
        if name == b"data" and len(layout) >= 16:
            return layout, own, size
        layout = own if name == b"fmt " else layout
        at += 8 + size + size % 2
    raise _Unread("is no whole WAV file: it ends before its samples", _SAVE)


def _as_int16(content: bytes, width: int) -> Int16[np.ndarray, " n"]:
    """Little-endian integers of so many bytes; those of one byte are unsigned."""
    if width == 2:
        return np.frombuffer(content, "<i2").astype(np.int16)
    if width == 1:
        return ((np.frombuffer(content, np.uint8).astype(np.int16) - 128) * 256).astype(np.int16)
    padded = np.zeros((len(content) // width, 4), np.uint8)
    padded[:, 4 - width :] = np.frombuffer(content, np.uint8).reshape(-1, width)
    return _of_32_bits(padded.view("<i4")[:, 0])


def _of_32_bits(samples: Shaped[np.ndarray, "..."]) -> Int16[np.ndarray, "..."]:
    """Rounded, and held within 16 bits."""
    return np.clip((samples.astype(np.int64) + 2**15) >> 16, -(2**15), 2**15 - 1).astype(np.int16)


def _of_floats(samples: Shaped[np.ndarray, "..."]) -> Int16[np.ndarray, "..."]:
    """Those whose full scale is 1, rounded, and held within 16 bits."""
    if not np.isfinite(samples).all():
        raise _Unread("has samples that are no numbers", _SAVE)
    if (peak := float(np.abs(samples).max(initial=0.0))) > _MOST_FLOAT:
        raise _Unread(
            f"has floats up to {peak:.3g}, where 1 is full scale", "divide them, or " + _SAVE
        )
    return _held(samples.astype(np.float64) * 2**15)


def _by_soundfile(content: bytes, at: str) -> tuple[Int16[np.ndarray, "n *channels"], int]:
    """The samples of a FLAC or OGG file, and how many a second.

    Of Vorbis and Opus as floats: as integers libsndfile turns what is beyond full scale around.
    """
    try:
        import soundfile
    except ImportError:
        raise BadInput(
            "root", f"{at}: FLAC and OGG need soundfile", "pip install 'kdjax[speech]'"
        ) from None
    try:
        with soundfile.SoundFile(io.BytesIO(content)) as file:
            if file.frames >= 2**31:  # what FLAC says where it does not know
                raise _Unread("does not say how long it is", "convert it, or remove it")
            integers = file.subtype.startswith("PCM")
            samples = file.read(dtype="int32" if integers else "float64")
            rate, declared = int(file.samplerate), file.frames
    except (RuntimeError, OSError) as error:
        said = " ".join(str(getattr(error, "error_string", error)).split())
        raise _Unread(f"cannot be read ({said})", _AGAIN) from None
    if len(samples) < declared:
        raise _Unread(f"is cut off: {len(samples)} of {declared} samples are there", _AGAIN)
    _check_pages(content)
    return (_of_32_bits if integers else _of_floats)(samples), rate


def _check_pages(content: bytes) -> None:
    """Refuses an OGG file that is cut off, of which libsndfile gives what is there; or that has several.

    The last page of a stream is marked (RFC 3533, sec. 6).
    """
    at, last = 0, content[:4] != b"OggS"
    while content[at : at + 4] == b"OggS":
        if last:
            raise _Unread("has several recordings, one behind the other", "make a file of each")
        table = content[at + 27 :][: content[at + 26]] if at + 26 < len(content) else b""
        at, last = at + 27 + len(table) + sum(table), bool(content[at + 5] & 4)
        if at > len(content):
            last = False
    if not last:
        raise _Unread("is cut off: its last page is not there", _AGAIN)


def _held(samples: Shaped[np.ndarray, "..."]) -> Int16[np.ndarray, "..."]:
    """Rounded, and held within 16 bits."""
    return np.clip(np.rint(samples), -(2**15), 2**15 - 1).astype(np.int16)


def resampled(samples: Int16[np.ndarray, " n"], rate: int, wanted: int) -> Int16[np.ndarray, " m"]:
    """At another rate, rounded and held within 16 bits; as they are at their own."""
    if rate == wanted:
        return samples
    common = math.gcd(rate, wanted)
    found = signal.resample_poly(samples.astype(np.float64), wanted // common, rate // common)
    return _held(found)


def fitted(samples: Int16[np.ndarray, " n"], length: int) -> Int16[np.ndarray, " length"]:
    """The middle of what is longer; zeros behind what is shorter."""
    begin = max(0, len(samples) - length) // 2
    cut = samples[begin : begin + length]
    return np.pad(cut, (0, length - len(cut)))


def is_clipped(samples: Int16[np.ndarray, " n"]) -> bool:
    """Whether so many samples in a row are at one end of the scale that the rest was cut off."""
    for own in (samples, ~samples):  # the complement of -2^15 is 2^15 - 1
        at = np.flatnonzero(own == max(own.max(initial=0), _FULL))
        if len(at) >= _CLIPPED and (at[_CLIPPED - 1 :] - at[: 1 - _CLIPPED] == _CLIPPED - 1).any():
            return True
    return False
