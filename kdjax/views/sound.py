"""Views of sound: 16-bit samples in, 16-bit samples out, of the same length.

Every function is `(key, samples, ...) -> samples` of one recording, float32 in units of a sample, so that
they may follow each other; `waveform` puts them together and rounds once.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int16, Key

_FULL_SCALE = 2.0**15
_QUIET = 1.0
"""Root mean square of a sample below which a recording is silence."""

Samples = Float[Array, " n"]


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

    Reference: Park et al. 2019, https://arxiv.org/abs/1904.08779, for the two masks; Ko et al. 2015,
    https://www.isca-archive.org/interspeech_2015/ko15_interspeech.pdf, for the speed.
    """
    keys = dict(
        zip(
            ("speed", "shift", "band", "time", "gain", "noise"),
            jax.random.split(key, 6),
            strict=True,
        )
    )
    x = audio.astype(jnp.float32)
    if speed > 1.0:
        x = at_speed(keys["speed"], x, most=speed)
    if shift:
        x = shifted(keys["shift"], x, most=shift)
    if band_mask:
        x = without_band(keys["band"], x, most=band_mask)
    if time_mask:
        x = silenced(keys["time"], x, most=time_mask)
    if gain:
        x = louder(keys["gain"], x, decibels=gain)
    if noise is not None:
        x = with_noise(keys["noise"], x, least=noise)
    return jnp.clip(jnp.rint(x), -_FULL_SCALE, _FULL_SCALE - 1.0).astype(jnp.int16)


def shifted(key: Key[Array, ""], x: Samples, *, most: int) -> Samples:
    """Moved by up to `most` samples, with zeros where there was nothing."""
    by = jax.random.randint(key, (), -most, most + 1)
    padded = jnp.pad(x, (most, most))
    return jax.lax.dynamic_slice(padded, (most - by,), x.shape)


def at_speed(key: Key[Array, ""], x: Samples, *, most: float) -> Samples:
    """Played `1 / most` to `most` times as fast about its middle, by linear interpolation."""
    factor = jnp.exp(jax.random.uniform(key, (), minval=-1.0, maxval=1.0) * math.log(most))
    n = x.shape[0]
    middle = (n - 1) / 2.0
    at = (jnp.arange(n) - middle) * factor + middle
    return jnp.interp(at, jnp.arange(n), x, left=0.0, right=0.0)


def louder(key: Key[Array, ""], x: Samples, *, decibels: float) -> Samples:
    """Louder or softer by up to so many decibels."""
    return x * 10.0 ** (jax.random.uniform(key, (), minval=-decibels, maxval=decibels) / 20.0)


def with_noise(key: Key[Array, ""], x: Samples, *, least: float) -> Samples:
    """With white noise, `least` to `least + 30` decibels below the signal; silence stays silent."""
    ratio, drawn = jax.random.split(key)
    below = jax.random.uniform(ratio, (), minval=least, maxval=least + 30.0)
    loud = jnp.sqrt((x * x).mean())
    level = jnp.where(loud < _QUIET, 0.0, loud * 10.0 ** (-below / 20.0))
    return x + level * jax.random.normal(drawn, x.shape)


def silenced(key: Key[Array, ""], x: Samples, *, most: int) -> Samples:
    """Without a piece of up to `most` samples, anywhere."""
    length, start = jax.random.split(key)
    cut = jax.random.randint(length, (), 0, most + 1)
    begin = jax.random.randint(start, (), 0, x.shape[0] - cut + 1)
    at = jnp.arange(x.shape[0])
    return jnp.where((at >= begin) & (at < begin + cut), 0.0, x)


def without_band(key: Key[Array, ""], x: Samples, *, most: float) -> Samples:
    """Without a band of up to that share of the octaves from 1/64 of half the rate to all of it."""
    width, start = jax.random.split(key)
    share = jax.random.uniform(width, (), maxval=most)
    low = jax.random.uniform(start, ()) * (1.0 - share)
    spectrum = jnp.fft.rfft(x)
    bins = spectrum.shape[0]
    octave = jnp.log2(jnp.maximum(jnp.arange(bins), 1.0) / bins) / 6.0 + 1.0  # 0 to 1
    out = (octave >= low) & (octave < low + share)
    return jnp.fft.irfft(jnp.where(out, 0.0, spectrum), n=x.shape[0])
