"""Recordings: a folder of files, or a prepared set."""

import dataclasses
import re
from collections.abc import Iterator
from typing import Annotated, Literal

from kdjax import data
from kdjax.config.fields import Count, NonNegative, Positive, Regex, Seed, Symbols, Text
from kdjax.config.sources import Source, TestShare, reading
from kdjax.data import Dataset, sources
from kdjax.data.sources.folders import LabelsFrom, Layout
from kdjax.data.sources.recordings import SoundHow
from kdjax.data.transcripts import Unit, faults_of
from kdjax.ranges import Distinct, In
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


Decibels = Annotated[float, In("[-60, 30]")]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConnectedWords(Source):
    """Synthetic utterances: recordings of single words of a set that TFDS has prepared, joined by draws.

    The set is in `data.data_dir`; see `kdjax.data.sources.connected_words`. The transcript of an
    utterance is of words, the names of the set's classes; the split is `train` or `test`.

    Attributes:
      set: its name: `spoken_digit:1.0.10`.
      rate: samples a second that utterances have; what is recorded at another one is resampled.
      utterances: of `train`.
      test_utterances: of `test`.
      test_speakers: whose recordings are in `test` and in nothing else; with none, the set's own splits
        say which recordings are.
      words: of an utterance, the least and the most.
      pauses: seconds of silence before, between and behind words, the least and the most.
      levels: decibels by which words are made louder or softer, the least and the most.
      seed: of the draws: the same seed gives the same utterances.
      speaker: a pattern whose first group is the speaker in the name of a file.
      file: the feature of these names.
      audio: the feature of the samples.
      label: the feature of the words.
      recorded_at: samples a second of the set; what its metadata say by default.
      longest: in seconds; that of the longest utterance by default.
    """

    kind: Literal["connected_words"]
    set: Text
    rate: Count
    utterances: Count
    test_utterances: Count
    test_speakers: Annotated[tuple[Text, ...], Distinct()]
    words: tuple[Count, Count] = (2, 5)
    pauses: tuple[NonNegative, NonNegative] = (0.05, 0.3)
    levels: tuple[Decibels, Decibels] = (-12.0, 0.0)
    seed: Seed = 0
    speaker: Regex = "_([^_]+)_"
    file: Text = "audio/filename"
    audio: Text = "audio"
    label: Text = "label"
    recorded_at: Count | None = None
    longest: Positive | None = None

    def faults(self) -> Iterator[Fault]:
        """Ends that are not in order."""
        for name in ("words", "pauses", "levels"):
            least, most = getattr(self, name)
            if least > most:
                yield name, f"{least:g} is above {most:g}", "give the least and the most"
        if re.compile(self.speaker).groups < 1:
            yield "speaker", f"{self.speaker!r} has no group", "put the speaker in parentheses"

    def dataset(self, split: str, *, data_dir: str | None, kept: data.Kept | None) -> Dataset:
        """See `Source`."""
        names = [field.name for field in dataclasses.fields(self)]
        drawn = sources.Joining._fields
        given = {name: getattr(self, name) for name in names if name not in ("kind", *drawn)}
        with reading():
            return sources.connected_words(
                split,
                joining=sources.Joining(**{name: getattr(self, name) for name in drawn}),
                data_dir=data_dir,
                **given,
            )
