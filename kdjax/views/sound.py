"""Views of sound: 16-bit samples in, 16-bit samples out.

Every function is `(key, samples, ...) -> samples` of one recording, float32 in units of a sample, so that
they may follow each other; `waveform` puts them together and rounds once. A recording that has a length
of its own, zeros behind it, is changed within that length: `ragged_waveform`.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int, Int16, Key, UInt32

_FULL_SCALE = 2.0**15
_QUIET = 1.0
"""Root mean square of a sample below which a recording is silence."""

_SPEEDS = 256
"""Speeds at which a recording of its own length is played, faster than 1 and as many slower: a table of
them, as its new length must be the same integer in every program."""

Samples = Float[Array, " n"]

Length = Int[Array, ""]
"""Of one recording; the samples behind it are zeros."""


class Pauses(NamedTuple):
    """Noise that was recorded.

    Attributes:
      noise: its samples, with a root mean square of 1: see `kdjax.views.pauses`.
      least: the least ratio of signal to noise in decibels; it is drawn up to 30 above.
    """

    noise: Float32[np.ndarray, " samples"]
    least: float


def waveform(
    key: Key[Array, ""],
    audio: Int16[Array, " n"],
    *,
    shift: int = 0,
    speed: float = 1.0,
    gain: float = 0.0,
    noise: float | None = None,
    time_mask: int = 0,
    band_mask: float = 0.0,
    pauses: Pauses | None = None,
) -> Int16[Array, " n"]:
    """A view of a recording: played faster or slower, shifted, masked, louder or softer, with noise.

    Each of these is drawn by a key of its own, so that one that is left out changes no other.

    Args:
      key: that decides.
      audio: a recording.
      shift: samples that it is moved by at most, either way; zeros come in.
      speed: played so many times as fast at most, and as slow; pitch follows. At least 1.
      gain: decibels that it is made louder or softer by at most.
      noise: the least ratio of signal to noise in decibels, of white noise; it is drawn up to 30 above.
        None for no noise.
      time_mask: samples that are silenced at most, in one piece (SpecAugment).
      band_mask: share of the spectrum, on a logarithmic scale, that is taken out at most, in one band.
      pauses: recorded noise that is mixed in, from a place on that is drawn; None for none.

    Reference: Park et al. 2019, https://arxiv.org/abs/1904.08779, for the two masks; Ko et al. 2015,
    https://www.isca-archive.org/interspeech_2015/ko15_interspeech.pdf, for the speed.
    """
    x, _ = _changed(
        key,
        audio.astype(jnp.float32),
        None,
        shift=shift,
        speed=speed,
        gain=gain,
        noise=noise,
        time_mask=time_mask,
        band_mask=band_mask,
        pauses=pauses,
    )
    return _rounded(x)


def ragged_waveform(
    key: Key[Array, ""],
    audio: Int16[Array, " n"],
    length: Length,
    *,
    longest: int,
    shift: int = 0,
    speed: float = 1.0,
    gain: float = 0.0,
    noise: float | None = None,
    time_mask: int = 0,
    band_mask: float = 0.0,
    pauses: Pauses | None = None,
) -> tuple[Int16[Array, " m"], Length]:
    """A view of a recording of its own length, and how long it is: see `waveform`.

    It is the same however many zeros are behind the recording. Faster is shorter, and slower is longer,
    but not longer than `longest`: nothing is cut off. All else is within the recording and leaves its
    length; half of it is moved out, or silenced, at most.

    Args:
      key: that decides.
      audio: a recording and the zeros behind it.
      length: of the recording.
      longest: samples that there may be of any, `n` at least; the view has `n * speed` at most.
      shift: see `waveform`.
      speed: likewise.
      gain: likewise.
      noise: likewise.
      time_mask: likewise.
      band_mask: likewise.
      pauses: likewise.
    """
    n = audio.shape[0]
    most = min(longest, math.ceil(n * speed))
    # A spectrum, a sum and a draw of noise are those of one width, whatever the padding.
    width = longest if band_mask or noise is not None or pauses is not None else most
    x, new = _changed(
        key,
        jnp.pad(audio, (0, width - n)).astype(jnp.float32),
        length,
        shift=shift,
        speed=speed,
        gain=gain,
        noise=noise,
        time_mask=time_mask,
        band_mask=band_mask,
        pauses=pauses,
    )
    assert new is not None
    return _rounded(x)[:most], new


def _rounded(x: Samples) -> Int16[Array, " n"]:
    return jnp.clip(jnp.rint(x), -_FULL_SCALE, _FULL_SCALE - 1.0).astype(jnp.int16)


def _changed(
    key: Key[Array, ""],
    x: Samples,
    length: Length | None,
    *,
    shift: int,
    speed: float,
    gain: float,
    noise: float | None,
    time_mask: int,
    band_mask: float,
    pauses: Pauses | None,
) -> tuple[Samples, Length | None]:
    """All of it in its order, each by a key of its own, and the new length."""
    names = ("speed", "shift", "band", "time", "gain", "noise", "pauses")
    keys = dict(zip(names, jax.random.split(key, len(names)), strict=True))
    if speed > 1.0:
        if length is None:
            x = at_speed(keys["speed"], x, most=speed)
        else:
            x, length = played(keys["speed"], x, length, most=speed)
    if shift:
        x = shifted(keys["shift"], x, length, most=shift)
    if band_mask:
        x = without_band(keys["band"], x, length, most=band_mask)
    if time_mask:
        x = silenced(keys["time"], x, length, most=time_mask)
    if gain:
        x = louder(keys["gain"], x, decibels=gain)
    if noise is not None:
        x = with_noise(keys["noise"], x, length, least=noise)
    if pauses is not None:
        x = with_pauses(keys["pauses"], x, length, pauses=pauses)
    return x, length


def _within(x: Samples, length: Length | None) -> Samples:
    """Zeros behind the recording."""
    return x if length is None else jnp.where(jnp.arange(x.shape[0]) < length, x, 0.0)


def _at_most(most: int, length: Length | None) -> int | Length:
    """Of a recording of its own length, half of it."""
    return most if length is None else jnp.minimum(most, length // 2)


def shifted(key: Key[Array, ""], x: Samples, length: Length | None = None, *, most: int) -> Samples:
    """Moved by up to `most` samples, with zeros where there was nothing."""
    limit = _at_most(most, length)
    by = jax.random.randint(key, (), -limit, limit + 1)
    padded = jnp.pad(x, (most, most))
    return _within(jax.lax.dynamic_slice(padded, (most - by,), x.shape), length)


def at_speed(key: Key[Array, ""], x: Samples, *, most: float) -> Samples:
    """Played `1 / most` to `most` times as fast about its middle, by linear interpolation."""
    factor = jnp.exp(jax.random.uniform(key, (), minval=-1.0, maxval=1.0) * math.log(most))
    last = x.shape[0] - 1
    apart = 2 * jnp.arange(last + 1) - last  # from the middle, in half samples
    whole = jnp.floor(factor)
    part = ((factor - whole) * 2.0**32).astype(jnp.uint32)
    below, beyond = _times(jnp.abs(apart), whole.astype(jnp.int32), part)
    before = apart < 0
    below = last + jnp.where(before, -below - (beyond > 0), below)
    beyond = jnp.where(before & (beyond > 0), 1.0 - beyond, beyond)
    inside = (below >= 0) & ((below < 2 * last) | ((below == 2 * last) & (beyond == 0)))
    return jnp.where(inside, _between(x, below // 2, (below % 2 + beyond) / 2.0), 0.0)


def played(
    key: Key[Array, ""], x: Samples, length: Length, *, most: float
) -> tuple[Samples, Length]:
    """`at_speed` from the first sample to the last, so it is shorter or longer, and its new length.

    It is played so fast at least that there is room for all of it.
    """
    drawn = jax.random.randint(key, (), 0, 2 * _SPEEDS + 1)
    long = jnp.rint(length.astype(jnp.float32) * jnp.asarray(_longer(most))[drawn])
    new = jnp.clip(long.astype(length.dtype), 1, x.shape[0])
    places = _times(jnp.arange(x.shape[0]), length // new, _fraction(length % new, new))
    return _within(_between(x, *places), new), new


def _between(x: Samples, below: Int[Array, " m"], beyond: Float[Array, " m"]) -> Float[Array, " m"]:
    """Linear interpolation at places behind the samples `below`, by fractions of the way to the next."""
    at = jnp.clip(below, 0, x.shape[0] - 2)
    return x[at] + beyond * (x[at + 1] - x[at])


def _fraction(of: Length, whole: Length) -> UInt32[Array, ""]:
    """`2^32 of / whole` without what is behind the point, by long division; `of` is less than `whole`."""

    def bit(_: Any, state: tuple[Array, Array]) -> tuple[Array, Array]:
        rest, found = state
        rest = 2 * rest
        fits = rest >= whole.astype(jnp.uint32)
        return jnp.where(fits, rest - whole.astype(jnp.uint32), rest), 2 * found + fits

    return jax.lax.fori_loop(0, 32, bit, (of.astype(jnp.uint32), jnp.uint32(0)))[1]


def _times(
    n: Int[Array, " m"], whole: Int[Array, ""], part: UInt32[Array, ""]
) -> tuple[Int[Array, " m"], Float[Array, " m"]]:
    """`n (whole + part / 2^32)`, not negative: the integer below it, and its fraction.

    By words of 16 bits, so a sample of a long recording is read where it is: float32 has 24 bits for
    both, and behind the 524,288th sample its places are multiples of 1/16.
    """
    n = n.astype(jnp.uint32)
    (high, low), (upper, lower) = ((x >> 16, x & 0xFFFF) for x in (n, part))
    middle = ((low * lower) >> 16) + ((high * lower) & 0xFFFF) + ((low * upper) & 0xFFFF)
    carried = ((high * lower) >> 16) + ((low * upper) >> 16) + (middle >> 16)
    beyond = (middle << 16) | ((low * lower) & 0xFFFF)
    found = n * whole.astype(jnp.uint32) + high * upper + carried
    return found.astype(jnp.int32), beyond.astype(jnp.float32) * 2.0**-32


@functools.lru_cache(maxsize=16)
def _longer(most: float) -> Float32[np.ndarray, " speeds"]:
    """How many times as long a recording is at each speed, in equal ratios from the fastest on."""
    return np.asarray(most ** np.linspace(-1.0, 1.0, 2 * _SPEEDS + 1), np.float32)


def shortest(lengths: Int[np.ndarray, " n"], *, speed: float) -> Int[np.ndarray, " n"]:
    """How many samples `ragged_waveform` leaves at least of recordings of these lengths."""
    if speed == 1.0:
        return lengths
    found = np.rint(np.asarray(lengths, np.float32) * _longer(speed)[:1])
    return np.maximum(found, 1.0).astype(lengths.dtype)


def louder(key: Key[Array, ""], x: Samples, *, decibels: float) -> Samples:
    """Louder or softer by up to so many decibels."""
    return x * 10.0 ** (jax.random.uniform(key, (), minval=-decibels, maxval=decibels) / 20.0)


def with_noise(
    key: Key[Array, ""], x: Samples, length: Length | None = None, *, least: float
) -> Samples:
    """With white noise, `least` to `least + 30` decibels below the signal; silence stays silent."""
    ratio, drawn = jax.random.split(key)
    level = _noise_level(ratio, x, length, least=least)
    return _within(x + level * jax.random.normal(drawn, x.shape), length)


def with_pauses(
    key: Key[Array, ""], x: Samples, length: Length | None = None, *, pauses: Pauses
) -> Samples:
    """With recorded noise, from a place on that is drawn, and from its beginning again behind its end.

    It is `pauses.least` to `pauses.least + 30` decibels below the signal, as a whole: where it is drawn
    from may be louder or softer by what recordings of noise differ within. Silence stays silent.
    """
    ratio, drawn = jax.random.split(key)
    level = _noise_level(ratio, x, length, least=pauses.least)
    begin = jax.random.randint(drawn, (), 0, len(pauses.noise))
    at = (begin + jnp.arange(x.shape[0])) % len(pauses.noise)
    return _within(x + level * jnp.asarray(pauses.noise)[at], length)


def _noise_level(
    key: Key[Array, ""], x: Samples, length: Length | None, *, least: float
) -> Float[Array, ""]:
    """The root mean square of noise that is `least` to `least + 30` decibels below a signal."""
    below = jax.random.uniform(key, (), minval=least, maxval=least + 30.0)
    loud = jnp.sqrt((x * x).sum() / (x.shape[0] if length is None else length))
    return jnp.where(loud < _QUIET, 0.0, loud * 10.0 ** (-below / 20.0))


def silenced(
    key: Key[Array, ""], x: Samples, length: Length | None = None, *, most: int
) -> Samples:
    """Without a piece of up to `most` samples, anywhere."""
    size, start = jax.random.split(key)
    cut = jax.random.randint(size, (), 0, _at_most(most, length) + 1)
    end = x.shape[0] if length is None else length
    begin = jax.random.randint(start, (), 0, end - cut + 1)
    at = jnp.arange(x.shape[0])
    return jnp.where((at >= begin) & (at < begin + cut), 0.0, x)


def without_band(
    key: Key[Array, ""], x: Samples, length: Length | None = None, *, most: float
) -> Samples:
    """Without a band of up to that share of the octaves from 1/64 of half the rate to all of it."""
    width, start = jax.random.split(key)
    share = jax.random.uniform(width, (), maxval=most)
    low = jax.random.uniform(start, ()) * (1.0 - share)
    spectrum = jnp.fft.rfft(x)
    bins = spectrum.shape[0]
    octave = jnp.log2(jnp.maximum(jnp.arange(bins), 1.0) / bins) / 6.0 + 1.0  # 0 to 1
    out = (octave >= low) & (octave < low + share)
    return _within(jnp.fft.irfft(jnp.where(out, 0.0, spectrum), n=x.shape[0]), length)
