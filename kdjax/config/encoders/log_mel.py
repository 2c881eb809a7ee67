"""Networks for pictures on the log-mel spectra of sound."""

import dataclasses
from collections.abc import Iterator
from typing import Annotated, Literal

from kdjax import models
from kdjax.config.encoders import Encoder
from kdjax.config.fields import Count, Natural, NonNegative, Positive, Width
from kdjax.data.sources.recordings import AUDIO
from kdjax.inputs import Inputs
from kdjax.models import Compute
from kdjax.ranges import In
from kdjax.types import BadInput, Fault


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpecAugment:
    """Bands and frames that are masked in training: see `kdjax.models.spec_augmented`.

    Attributes:
      band_masks: pieces of the scale.
      band_width: bands of a piece at most.
      frame_masks: pieces of the time.
      frame_width: frames of a piece at most.
      frame_share: of the frames of a recording, in a piece at most.
    """

    band_masks: Natural = 2
    band_width: Count
    frame_masks: Natural = 2
    frame_width: Count
    frame_share: Annotated[float, In("(0, 1]")] = 1.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class LogMel(Encoder):
    """A network for pictures that looks at log-mel spectra, or their cepstra; it takes 16-bit samples.

    Attributes:
      net: the network; its pictures have a row a frame, a column a band, and one channel.
      rate: samples a second, of the recordings.
      window: length of a frame in milliseconds.
      hop: from one frame to the next, in milliseconds.
      bands: of the mel scale.
      low: lower end of the lowest one, in Hz.
      high: upper end of the highest, in Hz; half the rate by default.
      cepstrum: coefficients of the cepstrum, in the place of the bands.
      range: in decibels: what is further below the largest band of a recording counts as so far below, so
        that digital silence is like a quiet room; None for no such end.
      convention: whose spectra they are, see `kdjax.models.log_mel`.
      normalize: the spectra of each recording have mean and deviation of their own taken out.
      running: mean and deviation are those up to each frame: nothing waits for the end of a recording, as
        in a file for pieces of it. `range` must be None for such a file, too.
      augment: what is masked of them in training; None for nothing.
    """

    name: Literal["log_mel"]
    net: Encoder
    rate: Count
    window: Positive = 32.0
    hop: Positive = 16.0
    bands: Width = 32
    low: NonNegative = 60.0
    high: Positive | None = None
    cepstrum: Width | None = None
    range: Positive | None = 50.0
    convention: Literal["librosa", "whisper", "kaldi"] = "librosa"
    normalize: bool = True
    running: bool = False
    augment: SpecAugment | None = None

    def faults(self) -> Iterator[Fault]:
        """Fields that do not go together."""
        if self.net.weights is not None:
            yield "net.weights", "given here", "give weights beside net: they are of the whole"
        if self.running and not self.normalize:
            yield "running, normalize", "nothing is normalised", "leave running out"
        top = self.rate / 2 if self.high is None else self.high
        if not self.low < top <= self.rate / 2:
            yield (
                "low, high, rate",
                f"{self.low:g} and {top:g} Hz are not in order below half of {self.rate}",
            )
        if self.cepstrum is not None and self.cepstrum > self.bands:
            yield "cepstrum, bands", f"{self.cepstrum} of {self.bands} bands", "give fewer"
        if self.augment is not None:
            yield from self._masked(self.augment)
        for field, samples in (
            ("window", self._samples(self.window)),
            ("hop", self._samples(self.hop)),
        ):
            if samples < 2:
                yield f"{field}, rate", f"{samples} samples", "give more milliseconds"

    def _masked(self, own: SpecAugment) -> Iterator[Fault]:
        if not self.normalize:
            yield (
                "augment, normalize",
                "masks put zeros, which are the mean of normalised spectra",
                "set normalize=True, or leave augment out",
            )
        if not own.band_masks and not own.frame_masks:
            yield "augment.band_masks, augment.frame_masks", "both are 0", "leave augment out"
        if own.band_masks and self.cepstrum is not None:
            yield (
                "augment.band_masks, cepstrum",
                f"{own.band_masks}, and coefficients of a cepstrum are no bands",
                "set band_masks=0",
            )
        if own.band_masks and own.band_width >= self.bands:
            yield (
                "augment.band_width, bands",
                f"{own.band_width} bands leave nothing of {self.bands}",
                "give fewer",
            )

    def given(self, inputs: Inputs) -> "LogMel":
        """Itself, of recordings at its rate."""
        audio = next((part for part in inputs.sounds if part.field == AUDIO), None)
        if audio is None:
            raise BadInput(
                "encoder",
                f"log_mel hears {AUDIO}, 16-bit samples, and an example is {inputs}",
                "take another, or give it such",
            )
        if audio.rate not in (None, self.rate):
            raise BadInput(
                "encoder.rate",
                f"{self.rate} samples a second, and {AUDIO} has {audio.rate}",
                f"give {audio.rate}",
            )
        return self

    def _samples(self, milliseconds: float) -> int:
        return round(self.rate * milliseconds / 1000)

    def unstreamable(self) -> Fault | None:
        """What is of a whole recording: its largest band, its mean, its mirrored ends."""
        if self.convention == "whisper":
            return "convention", "whisper's spectra are of the whole recording", "take another"
        if self.range is not None:
            return "range", f"{self.range:g} dB below the largest of a recording", "give None"
        if self.normalize and not self.running:
            return "running", "False: the mean is that of the whole recording", "give True"
        if self._samples(self.hop) > self._samples(self.window):
            return (
                "hop, window",
                f"{self.hop:g} and {self.window:g} ms: samples between two frames are of neither piece",
                "give a hop that is no longer than the window",
            )
        if (fault := self.net.unstreamable()) is None:
            return None
        field, *said = fault
        return ".".join(filter(None, ("net", field))), *said  # pyright: ignore[reportReturnType]

    @property
    def shaped_by(self) -> str | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The field of its network."""
        return None if self.net.shaped_by is None else f"net.{self.net.shaped_by}"

    @property
    def title(self) -> str:
        """What the report calls it."""
        kind = "mfcc" if self.cepstrum is not None else "mel"
        return f"{self.net.title}-{kind}{self.cepstrum or self.bands}"

    def module(self, compute: Compute) -> models.OnLogMel:
        """See `kdjax.models.OnLogMel`."""
        front = models.LogMel(
            rate=self.rate,
            frame=self._samples(self.window),
            hop=self._samples(self.hop),
            bands=self.bands,
            low=self.low,
            high=self.high,
            cepstrum=self.cepstrum,
            range=None if self.convention == "whisper" else self.range,
            convention=self.convention,
        )
        return models.OnLogMel(
            front=front,
            net=self.net.module(compute),
            normalize=self.normalize,
            running=self.running,
            augment=None if self.augment is None else models.SpecAugment(**vars(self.augment)),
        )
