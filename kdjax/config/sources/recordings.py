"""Recordings: a folder of files, or a prepared set."""

import dataclasses
from collections.abc import Iterator
from typing import Literal

from kdjax import data
from kdjax.config.fields import Count, NonNegative, Positive, Symbols, Text
from kdjax.config.sources import Source, TestShare, reading
from kdjax.data import Dataset, sources
from kdjax.data.sources.folders import LabelsFrom, Layout
from kdjax.data.sources.recordings import SoundHow
from kdjax.data.transcripts import Unit, faults_of
from kdjax.types import Fault


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sounds(Source):
    """Recordings of one channel, as 16-bit samples. See `kdjax.data.sources.from_recordings`.

    Attributes:
      rate: samples a second that all have in the end; others are resampled.
      seconds: the length of all: the middle of a longer one, zeros behind a shorter one. Without, each is
        as long as it is.
      longest: in seconds, of recordings that keep their length; that of the split's longest by default.
      skip_short: leave out recordings shorter than so many seconds, and say so.
    """

    rate: Count
    seconds: Positive | None = None
    longest: Positive | None = None
    skip_short: NonNegative = 0.0

    def faults(self) -> Iterator[Fault]:
        """Fields that do not go together."""
        if self.seconds is not None and self.longest is not None:
            yield "longest, seconds", "all have one length", "give one of the two"

    @property
    def how(self) -> SoundHow:
        """The fields of `kdjax.data.sources.SoundHow`."""
        return {
            "rate": self.rate,
            "seconds": self.seconds,
            "longest": self.longest,
            "skip_short": self.skip_short,
        }


@dataclasses.dataclass(frozen=True, kw_only=True)
class TranscriptFiles:
    """Where the transcripts of recordings are; see `kdjax.data.sources.TranscriptFiles`.

    Attributes:
      files: a path below the folder of the recordings, or a pattern of several; CSV and TSV files, or
        files whose lines begin with the name of a recording, as LibriSpeech's `**/*.trans.txt`.
      path: the column of a recording's path, relative to the file; its ending may be left out.
      text: the column of its transcript; empty where there is none.
      alphabet: the symbols that there may be, in their order; those of all transcripts by default.
      unit: a symbol is one of the `characters`, or one of the `words`.
    """

    files: Text
    path: Text = "path"
    text: Text = "text"
    alphabet: Symbols | None = None
    unit: Unit = "characters"

    def faults(self) -> Iterator[Fault]:
        """Symbols that are none."""
        if self.alphabet is not None:
            yield from faults_of(self.alphabet, self.unit)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recordings(Sounds):
    """A folder of WAV, FLAC and OGG files; see `kdjax.data.sources.recordings`.

    Attributes:
      root: the folder; a local path, `~` expanded. It is no part of a fingerprint: the recordings are.
      layout: its own folders are `splits`, or all recordings lie `together`; `auto` goes by their names.
      labels: a recording's class is the `first` folder that it lies in, or the `last` one, or there is
        `none`; `auto` takes the only one.
      classes: how many there are, where they are more than there are folders.
      transcripts: of the recordings, in files; then folders are no classes.
      test_share: of the recordings, where there is no split `test`: by the hash of their samples.
    """

    kind: Literal["recordings"]
    root: str = dataclasses.field(metadata={"fingerprint": False})
    layout: Layout = "auto"
    labels: LabelsFrom = "auto"
    classes: Count | None = None
    transcripts: TranscriptFiles | None = None
    test_share: TestShare = 0.0

    def faults(self) -> Iterator[Fault]:
        """Fields that do not go together."""
        yield from super().faults()
        if self.transcripts is not None:
            if self.labels not in ("auto", "none"):
                yield "labels, transcripts", "folders are classes", "give one of the two"
            if self.classes is not None:
                yield "classes, transcripts", "transcripts have an alphabet", "leave classes out"

    def dataset(self, split: str, *, data_dir: str | None, kept: data.Kept | None) -> Dataset:
        """See `Source`."""
        given = None if (own := self.transcripts) is None else sources.TranscriptFiles(**vars(own))
        with reading():
            return sources.recordings(
                split,
                root=self.root,
                layout=self.layout,
                labels=self.labels,
                classes=self.classes,
                transcripts=given,
                test_share=self.test_share,
                **self.how,
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class TFDSSound(Sounds):
    """Recordings of a set that TFDS has prepared in `data.data_dir`; see `kdjax.data.sources.tfds_sound`.

    Attributes:
      set: its name: `spoken_digit:1.0.10`.
      audio: the feature of the samples.
      label: the feature of the labels.
      recorded_at: samples a second of the set; what its metadata say by default.
    """

    kind: Literal["tfds_sound"]
    set: Text
    audio: Text = "audio"
    label: Text = "label"
    recorded_at: Count | None = None

    def dataset(self, split: str, *, data_dir: str | None, kept: data.Kept | None) -> Dataset:
        """See `Source`."""
        with reading():
            return sources.tfds_sound(
                split,
                set=self.set,
                audio=self.audio,
                label=self.label,
                recorded_at=self.recorded_at,
                data_dir=data_dir,
                **self.how,
            )
