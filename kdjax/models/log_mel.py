"""Log-mel spectra and cepstra of sound, as the first layer of a network: it takes 16-bit samples.

The window, the Fourier transform and whatever else is linear in the samples of a frame are one
convolution, whose kernel is computed in float64; then come the power, the bands and the logarithm.
So it is exported like any other layer, at any length.

Three conventions, which differ in all of it:

* `librosa`: samples in [-1, 1), Hann window (periodic), frames centred on every `hop`-th sample with
  zeros beyond the ends, bands of unit area on Slaney's scale, natural logarithm of the power;
* `whisper`: the same frames but for the last, reflected at the ends, base 10, at most 8 below the largest
  band of the recording, then `(x + 4) / 4`;
* `kaldi`: samples as they are, frames that lie within the recording, each without its mean,
  pre-emphasised by 0.97 and in a Povey window, bands of unit height on HTK's scale, natural logarithm.

References: Slaney 1998, Auditory Toolbox; Young et al. 2006, The HTK Book, sec. 5.4; Davis and
Mermelstein 1980, https://doi.org/10.1109/TASSP.1980.1163420 (cepstra); Radford et al. 2022,
https://arxiv.org/abs/2212.04356.
"""

import inspect
import math
from collections.abc import Callable
from typing import Literal, NamedTuple, TypeVar

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Float64, Int, Int16

from kdjax.models.fourier import fourier, size_of
from kdjax.models.sequences import mask_of, mean_of
from kdjax.models.spec_augment import SpecAugment, spec_augmented
from kdjax.models.streaming import State, keep, running_norm
from kdjax.types import BadInput

T = TypeVar("T", int, Array)

Convention = Literal["librosa", "whisper", "kaldi"]
Scale = Literal["slaney", "htk"]

_WHISPER_RANGE = 80.0  # decibels


class _Said(NamedTuple):
    """What a convention says.

    Attributes:
      full_scale: that a sample is divided by.
      centred: frames are centred on every `hop`-th sample.
      reflect: what is beyond the ends is the recording mirrored, and not zeros.
      scale: of the bands.
      area: bands have the same area in Hz, and not the same height.
      floor: the least power of a band.
    """

    full_scale: float
    centred: bool
    reflect: bool
    scale: Scale
    area: bool
    floor: float


_SAID: dict[str, _Said] = {
    "librosa": _Said(32768.0, True, False, "slaney", True, 1e-10),
    "whisper": _Said(32768.0, True, True, "slaney", True, 1e-10),
    "kaldi": _Said(1.0, False, False, "htk", False, float(np.finfo(np.float32).eps)),
}


class LogMel(nn.Module):
    """Samples in, the logarithm of the power in bands out; or its cepstrum. It has no parameters.

    Attributes:
      rate: samples a second.
      frame: samples that are looked at together.
      hop: samples from one frame to the next.
      bands: of the mel scale.
      low: lower end of the lowest band, in Hz.
      high: upper end of the highest, in Hz; half the rate by default.
      cepstrum: coefficients of the discrete cosine transform (II, orthonormal) over the bands, from the
        mean on; None for the bands themselves.
      range: in decibels: what is further below the largest band of a recording counts as so far below.
        None for no such end, but for Whisper's own of 80.
      convention: see the module.
    """

    rate: int
    frame: int
    hop: int
    bands: int = 40
    low: float = 20.0
    high: float | None = None
    cepstrum: int | None = None
    range: float | None = None
    convention: Convention = "librosa"

    def frames(self, samples: T) -> T:
        """How many there are of a recording of so many samples, at least 0."""
        found = 1 + (samples + 2 * self.beside - self.frame) // self.hop
        found -= _SAID[self.convention].reflect  # Whisper leaves the last frame out
        return max(0, found) if isinstance(found, int) else jnp.maximum(found, 0)

    @property
    def beside(self) -> int:
        """Samples that a frame may begin before the recording, and as many that it may end behind."""
        return self.frame // 2 if _SAID[self.convention].centred else 0

    @nn.compact
    def __call__(
        self,
        audio: Int16[Array, "batch samples"],
        *,
        within: bool = False,
        frames: Int[Array, " batch"] | None = None,
    ) -> Float[Array, "batch frames bands"]:
        """Of every recording, float32.

        Args:
          audio: the samples.
          within: frames lie within what is given, which has what is beside the recording.
          frames: that each recording has, none behind them is its largest; None for all.

        Raises:
          BadInput: a recording is shorter than a frame.
        """
        said = _SAID[self.convention]
        length = audio.shape[-1]
        beside = 0 if within else self.beside
        least = max(self.frame - 2 * beside, *((beside + 1, self.hop) if said.reflect else (1,)))
        if isinstance(length, int) and length < least:
            fault = f"{self.frame} samples, and a recording has {length}"
            raise BadInput("encoder.frame", fault, "give fewer")
        x = audio.astype(jnp.float32) / said.full_scale
        if beside:
            x = jnp.pad(
                x, ((0, 0), (beside, beside)), mode="reflect" if said.reflect else "constant"
            )
        kernel, bank = self._constants()
        spectrum = lax.conv_general_dilated(
            x[..., None],
            jnp.asarray(kernel[:, None], jnp.float32),
            (self.hop,),
            "VALID",
            dimension_numbers=("NWC", "WIO", "NWC"),
        )
        real, imaginary = jnp.split(spectrum, 2, axis=-1)
        if said.reflect:  # Whisper leaves the last frame out
            real, imaginary = real[:, :-1], imaginary[:, :-1]
        power = real * real + imaginary * imaginary
        found = jnp.log(jnp.maximum(power @ jnp.asarray(bank, jnp.float32), said.floor))
        most = _WHISPER_RANGE if said.reflect else self.range
        if most is not None:
            own = found
            if frames is not None:
                own = jnp.where(mask_of(found, frames)[..., None], found, math.log(said.floor))
            least = own.max(axis=(1, 2), keepdims=True) - most * math.log(10.0) / 10.0
            found = jnp.maximum(found, least)
        if said.reflect:
            found = (found / math.log(10.0) + 4.0) / 4.0
        if self.cepstrum is not None:
            found = found @ jnp.asarray(cosines(self.bands, self.cepstrum), jnp.float32)
        return found

    def _constants(self) -> tuple[np.ndarray, np.ndarray]:
        """The Fourier kernel and the bands, of the bins alone that a band has."""
        said = _SAID[self.convention]
        bank = filterbank(
            rate=self.rate,
            size=size_of(self.frame, self.convention),
            bands=self.bands,
            low=self.low,
            high=self.high,
            scale=said.scale,
            area=said.area,
        )
        used = np.flatnonzero(bank.any(1))
        bins = slice(used[0], used[-1] + 1)
        parts = np.split(fourier(self.frame, self.convention), 2, axis=1)
        return np.concatenate([part[:, bins] for part in parts], axis=1), bank[bins]


def _slaney(hertz: np.ndarray) -> np.ndarray:
    """Linear below 1 kHz, then 27 steps for each factor of 6.4."""
    high = 15.0 + 27.0 * np.log(np.maximum(hertz, 1e-9) / 1000.0) / math.log(6.4)
    return np.where(hertz < 1000.0, hertz * 3.0 / 200.0, high)


def _of_slaney(mel: np.ndarray) -> np.ndarray:
    return np.where(mel < 15.0, mel * 200.0 / 3.0, 1000.0 * 6.4 ** ((mel - 15.0) / 27.0))


def _htk(hertz: np.ndarray) -> np.ndarray:
    return 1127.0 * np.log1p(hertz / 700.0)


def _of_htk(mel: np.ndarray) -> np.ndarray:
    return 700.0 * np.expm1(mel / 1127.0)


_SCALES: dict[str, tuple[Callable[..., np.ndarray], Callable[..., np.ndarray]]] = {
    "slaney": (_slaney, _of_slaney),
    "htk": (_htk, _of_htk),
}


def filterbank(
    *,
    rate: int,
    size: int,
    bands: int,
    low: float,
    high: float | None,
    scale: Scale,
    area: bool,
) -> Float64[np.ndarray, "bins bands"]:
    """The weight of each bin of a spectrum in each band; bands are evenly spaced on the scale.

    Args:
      rate: samples a second.
      size: points of the Fourier transform; there are `size // 2 + 1` bins.
      bands: how many.
      low: lower end of the lowest one, in Hz.
      high: upper end of the highest, in Hz; half the rate by default.
      scale: Slaney's, whose bands are triangles over Hz; HTK's, as Kaldi has them, over mels.
      area: bands have the same area, and not the height 1.

    Raises:
      BadInput: the ends are not in order, or a band has no bin.
    """
    high = rate / 2.0 if high is None else high
    if not 0.0 <= low < high <= rate / 2.0:
        raise BadInput(
            "encoder.low, encoder.high",
            f"{low:g} and {high:g} Hz are not in order from 0 to {rate / 2:g}, half the rate",
        )
    there, back = _SCALES[scale]
    hertz = np.arange(size // 2 + 1) * (rate / size)
    ends = there(np.asarray([low, high], np.float64))
    edges = np.linspace(ends[0], ends[1], bands + 2)
    if scale == "htk":
        at = there(hertz)
    else:
        at, edges = hertz, back(edges)
    rising = (at[:, None] - edges[None, :-2]) / np.diff(edges)[None, :-1]
    falling = (edges[None, 2:] - at[:, None]) / np.diff(edges)[None, 1:]
    bank = np.maximum(0.0, np.minimum(rising, falling))
    if area:
        corners = edges if scale == "slaney" else back(edges)
        bank *= 2.0 / (corners[2:] - corners[:-2])
    if (empty := np.flatnonzero(bank.max(0) == 0.0)).size:
        raise BadInput(
            "encoder.bands",
            f"{bands}, and band {empty[0]} has no bin of the {size // 2 + 1} of a frame",
            "give fewer, or longer frames",
        )
    return bank


def cosines(bands: int, kept: int) -> Float64[np.ndarray, "bands kept"]:
    """The discrete cosine transform (II, orthonormal) over the bands, its first coefficients.

    Raises:
      BadInput: there are not so many.
    """
    if not 1 <= kept <= bands:
        raise BadInput("encoder.cepstrum", f"{kept} of {bands} bands", f"give 1 to {bands}")
    at, order = np.arange(bands) + 0.5, np.arange(kept)
    found = np.cos(np.pi / bands * np.outer(at, order)) * math.sqrt(2.0 / bands)
    found[:, 0] /= math.sqrt(2.0)
    return found


_ONE_LENGTH = "give data.source.seconds, of which all recordings are then"


class OnLogMel(nn.Module):
    """A network that looks at log-mel spectra: frames are rows, bands are columns, of one channel.

    Attributes:
      front: the spectra.
      net: the network. Where recordings have lengths of their own it is called with those of the spectra
        as well, or takes none.
      normalize: each band has the mean zero over the frames of a recording, and all together have
        the standard deviation one.
      running: over those up to each frame instead, see `kdjax.models.streaming.running_norm`.
      augment: what is masked of the spectra in training, by the model's stream of dropout; None for none.
    """

    front: LogMel
    net: nn.Module
    normalize: bool = True
    running: bool = False
    augment: SpecAugment | None = None

    @nn.compact
    def __call__(
        self,
        audio: Int16[Array, "batch samples"],
        audio_length: Int[Array, " batch"] | None = None,
        *,
        train: bool,
        state: State | None = None,
        hidden: Bool[Array, "batch frames"] | None = None,
    ):
        """What the network gives.

        Args:
          audio: the samples.
          audio_length: of each recording, zeros are behind it; None for all of them. One that is shorter
            than a frame is a frame.
          train: of the network, and with masks.
          state: what was kept of the pieces before this one, which then begins with the samples behind
            the beginning of the last frame's next one; before the first piece, with the zeros beside
            the recording.
          hidden: frames whose spectra are zeros, the mean of normalised ones; None for none.

        Raises:
          BadInput: recordings have lengths, and the network or the spectra do not go with that.
        """
        if state is not None:
            x = self.front(audio, within=True)
            if self.normalize:
                x, after = running_norm(x, state)
                keep(self, after)
            return self.net(x[..., None], train=train, state=state)
        if audio_length is not None:
            self._check_lengths()
        x, frames = self.spectra(audio, audio_length)
        x = self._augmented(x, frames, train=train)
        if hidden is not None:
            x = jnp.where(hidden[..., None], 0.0, x)
        if frames is None:
            return self.net(x[..., None], train=train)
        return self.net(x[..., None], frames, train=train)

    def spectra(
        self,
        audio: Int16[Array, "batch samples"],
        audio_length: Int[Array, " batch"] | None = None,
    ) -> tuple[Float[Array, "batch frames bands"], Int[Array, " batch"] | None]:
        """What the network looks at, and how many frames each recording has; None where all have all.

        Args:
          audio: the samples.
          audio_length: see above; frames behind the end are zeros.

        Raises:
          BadInput: the convention's last frames are of what is behind the end.
        """
        frames = None
        if audio_length is not None:
            self._check_ends()
            frames = jnp.maximum(self.front.frames(audio_length), 1)
            if not _SAID[self.front.convention].centred:
                audio = jnp.pad(audio, ((0, 0), (0, self.front.frame - 1)))
        x = self.front(audio, frames=frames)
        if self.normalize and self.running:
            x, _ = running_norm(x, {})
        if frames is None:
            if self.normalize and not self.running:
                x = x - x.mean(axis=1, keepdims=True)
                x = x * lax.rsqrt((x * x).mean(axis=(1, 2), keepdims=True) + 1e-5)
            return x, None
        mask = mask_of(x, frames)
        if self.normalize and not self.running:
            x = x - jnp.expand_dims(mean_of(x, mask), 1)
            power = mean_of((x * x).mean(axis=2, keepdims=True), mask)
            x = x * lax.rsqrt(jnp.expand_dims(power, 2) + 1e-5)
        return jnp.where(mask[..., None], x, 0.0), frames

    def _augmented(
        self,
        x: Float[Array, "batch frames bands"],
        frames: Int[Array, " batch"] | None,
        *,
        train: bool,
    ) -> Float[Array, "batch frames bands"]:
        if self.augment is None or not train:
            return x
        return spec_augmented(self.make_rng("dropout"), x, frames, self.augment)

    def _check_ends(self) -> None:
        if _SAID[self.front.convention].reflect:
            raise BadInput(
                "encoder.convention",
                f"{self.front.convention} mirrors the end of a recording, and each has its own",
                f"take another, or {_ONE_LENGTH}",
            )

    def _check_lengths(self) -> None:
        self._check_ends()
        if "length" not in inspect.signature(self.net.__call__).parameters:
            raise BadInput(
                "encoder.net",
                f"{type(self.net).__name__} takes no lengths, and each recording has its own",
                f"take lstm, or {_ONE_LENGTH}",
            )
