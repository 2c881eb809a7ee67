"""Synthetic utterances: recordings of single words joined, with drawn pauses and levels.

Every draw is integer arithmetic on the bits of a counter that is keyed by the seed and the number of the
utterance in its split, so the same seed gives the same samples on any machine.
"""

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int16

from kdjax.data.dataset import Dataset
from kdjax.data.prepared import check_key
from kdjax.data.sources import splits
from kdjax.data.sources.recordings import Prepared, from_recordings
from kdjax.data.sources.waves import MOST_RATE, Recording
from kdjax.data.transcripts import Transcripts
from kdjax.types import BadInput

_UNIT = 2**15
"""Of a level: it is a fraction with so many parts, by which samples are multiplied as integers."""


class Joining(NamedTuple):
    """How utterances are drawn.

    Attributes:
      words: the least and the most of an utterance.
      pauses: seconds of silence before, between and behind the words, the least and the most.
      levels: decibels by which a word is made louder or softer, the least and the most.
      seed: of the draws.
    """

    words: tuple[int, int] = (2, 5)
    pauses: tuple[float, float] = (0.05, 0.3)
    levels: tuple[float, float] = (-12.0, 0.0)
    seed: int = 0


_USUAL = Joining()


class _Spoken(NamedTuple):
    """A recording of one word.

    Attributes:
      speaker: whose it is.
      name: of its file, by which recordings are told apart.
      word: its class.
      samples: of it.
    """

    speaker: str
    name: str
    word: int
    samples: Int16[np.ndarray, " n"]


class _Utterance(NamedTuple):
    """What is drawn of one: recordings, the level of each in 2^-15, and pauses around them in samples."""

    spoken: list[_Spoken]
    levels: list[int]
    pauses: list[int]

    @property
    def length(self) -> int:
        return sum(self.pauses) + sum(len(one.samples) for one in self.spoken)

    def samples(self) -> Int16[np.ndarray, " n"]:
        """Rounded, and held within 16 bits."""
        found, at = np.zeros(self.length, np.int16), self.pauses[0]
        for one, level, pause in zip(self.spoken, self.levels, self.pauses[1:], strict=True):
            whole = one.samples.astype(np.int64) * level + _UNIT // 2
            cut = np.clip(whole >> 15, -(2**15), 2**15 - 1)
            found[at : at + len(cut)] = cut
            at += len(cut) + pause
        return found


def connected_words(
    split: str,
    *,
    set: str,
    utterances: int,
    test_utterances: int,
    test_speakers: Sequence[str],
    joining: Joining = _USUAL,
    speaker: str = r"_([^_]+)_",
    file: str = "audio/filename",
    audio: str = "audio",
    label: str = "label",
    recorded_at: int | None = None,
    data_dir: str | None = None,
    rate: int | None = None,
    longest: float | None = None,
) -> Dataset:
    """Synthetic utterances of one speaker each, joined of a set of words such as `spoken_digit:1.0.10`.

    A pause is digital silence. The transcript is of words: the names of the set's classes. The
    recordings of `test_speakers`, of all of the set's splits, are in no utterance of `train`; where none
    is named, all speakers are in both, `train` has the recordings of the set's own `train`, and `test`
    those of its `test`.

    Args:
      split: `train`, `test`, or a part of one as TFDS writes it.
      set: see `kdjax.data.prepared`.
      utterances: of `train`.
      test_utterances: of `test`.
      test_speakers: whom no model hears in training.
      joining: how they are drawn.
      speaker: what of a file's name says the speaker, the first group of this pattern.
      file: the feature of the names of files.
      audio: see `tfds_sound`.
      label: likewise.
      recorded_at: likewise.
      data_dir: likewise.
      rate: samples a second of the utterances; there is no default.
      longest: in seconds; that of the longest utterance of both splits by default.

    Raises:
      BadInput: nothing is prepared there, a feature is no such, a speaker is not there, a word has no
        recording of a speaker's; or see `from_recordings`.
    """
    if isinstance(rate, bool) or not isinstance(rate, int) or not 1 <= rate <= MOST_RATE:
        raise BadInput("rate", f"{rate!r}", f"give samples a second, 1 to {MOST_RATE}")
    prepared = Prepared.of(set, audio, label, recorded_at=recorded_at, data_dir=data_dir)
    check_key(prepared.builder.info.features, file, set, field="file")
    asked = splits.named(split, ["train", "test"], name=f"synthetic utterances of {set}", mend="")
    parts = _parts(prepared, file, speaker, test_speakers)
    counts = {"train": utterances, "test": test_utterances}
    drawn = {
        part: [_draw(own, joining, part, i, rate=prepared.rate) for i in range(counts[part])]
        for part, own in parts.items()
    }
    most = max(one.length for every in drawn.values() for one in every)
    name = f"synthetic utterances of {set} {split}"
    target = Transcripts(_names(prepared), joining.words[1], "words")
    heard, labels, rows = [], [], {}
    for part in asked:
        rows[part] = np.arange(len(heard), len(heard) + counts[part])
        for i, one in enumerate(drawn[part]):
            where = f"{part} utterance {i} of {set}"
            heard.append(Recording(f"{part} {i}".encode(), one.samples(), prepared.rate, where))
            words = [spoken.word for spoken in one.spoken]
            labels.append([*words, *[-1] * (target.positions - len(words))])
    return from_recordings(
        heard,
        target.read(np.asarray(labels), n=len(labels), name=name),
        target,
        rows=splits.cut(split, rows, None, name=name),
        name=name,
        notes=(_note(parts, counts),),
        rate=rate,
        longest=math.ceil(most * rate / prepared.rate) / rate if longest is None else longest,
    )


def _note(parts: Mapping[str, Mapping[str, list[_Spoken]]], counts: Mapping[str, int]) -> str:
    """What utterances are, for the run and its report."""
    return "; ".join(
        f"{part} has {counts[part]} synthetic utterances, joined of {sum(map(len, own.values()))} "
        f"recordings of {', '.join(own)}"
        for part, own in parts.items()
    )


def _names(prepared: Prepared) -> tuple[str, ...]:
    return prepared.target.names or tuple(str(i) for i in range(prepared.target.classes))


def _parts(
    prepared: Prepared, file: str, pattern: str, test_speakers: Sequence[str]
) -> dict[str, dict[str, list[_Spoken]]]:
    """The recordings of each speaker, of what `train` and what `test` are joined of."""
    known = sorted(prepared.builder.info.splits)
    found = {part: _by_speaker(prepared, part, file, pattern) for part in known}
    every = sorted({speaker for own in found.values() for speaker in own})
    for name in test_speakers:
        if name not in every:
            raise BadInput(
                "test_speakers", f"{name!r} is no speaker", f"they are {', '.join(every)}"
            )
    if test_speakers:
        if {*every} <= {*test_speakers}:
            raise BadInput("test_speakers", "nobody is left to learn from", "name fewer")
        whole = {
            speaker: [one for part in known for one in found[part].get(speaker, [])]
            for speaker in every
        }
        apart = {part: {} for part in ("train", "test")}
        for speaker, own in whole.items():
            apart["test" if speaker in test_speakers else "train"][speaker] = own
    elif {"train", "test"} <= {*known}:
        apart = {part: found[part] for part in ("train", "test")}
    else:
        raise BadInput(
            "test_speakers",
            f"empty, and {prepared.name} has no test recordings of its own, but {', '.join(known)}",
            f"name some of {', '.join(every)}",
        )
    for part, own in apart.items():
        for speaker, heard in own.items():
            _check_words(heard, _names(prepared), f"{speaker} in what {part} is joined of")
    return {part: _in_order(own) for part, own in apart.items()}


def _check_words(heard: Sequence[_Spoken], names: Sequence[str], of: str) -> None:
    """Raises `BadInput` where there is no recording of a word."""
    words = {one.word for one in heard}
    for word, name in enumerate(names):
        if word not in words:
            raise BadInput("set", f"there is no {name!r} of {of}", "name another set")


def _by_speaker(prepared: Prepared, part: str, file: str, pattern: str) -> dict[str, list[_Spoken]]:
    heard, words, more = prepared.read(part, more=[file])
    found: dict[str, list[_Spoken]] = {}
    for one, word, said in zip(heard, words, more, strict=True):
        name = said[file].decode() if isinstance(said[file], bytes) else str(said[file])
        match = re.search(pattern, name)
        if match is None or not match.groups():
            raise BadInput(
                "speaker", f"{pattern!r} finds no group in {name!r} ({one.where})", "change it"
            )
        if not len(one.samples):
            raise BadInput("data", f"{one.where} is empty", "leave it out")
        found.setdefault(match[1], []).append(_Spoken(match[1], name, int(word), one.samples))
    return found


def _in_order(own: Mapping[str, list[_Spoken]]) -> dict[str, list[_Spoken]]:
    """Speakers and recordings by their names: the order of records decides of nothing."""
    return {speaker: sorted(own[speaker], key=lambda one: one.name) for speaker in sorted(own)}


def _draw(
    by_speaker: Mapping[str, list[_Spoken]], how: Joining, part: str, number: int, *, rate: int
) -> _Utterance:
    """One utterance: its words are drawn evenly, and then a recording of each."""
    bits = _Bits(how.seed, f"{part} {number}")
    own = by_speaker[bits.of([*by_speaker])]
    by_word: dict[int, list[_Spoken]] = {}
    for one in own:
        by_word.setdefault(one.word, []).append(one)
    least, most = (round(_UNIT * 10 ** (decibels / 20)) for decibels in how.levels)
    shortest, widest = (round(seconds * rate) for seconds in how.pauses)
    count = bits.between(*how.words)
    spoken, levels, pauses = [], [], [bits.between(shortest, widest)]
    for _ in range(count):
        spoken.append(bits.of(by_word[bits.of(sorted(by_word))]))
        levels.append(bits.between(least, most))
        pauses.append(bits.between(shortest, widest))
    return _Utterance(spoken, levels, pauses)


class _Bits:
    """Draws by the bits of Philox, whose key is a seed and a name.

    Reference: Salmon et al. 2011, https://doi.org/10.1145/2063384.2063405.
    """

    def __init__(self, seed: int, name: str):
        stream = int.from_bytes(hashlib.sha256(f"utterance {name}".encode()).digest()[:8], "big")
        self._bits = np.random.Philox(key=np.asarray([seed, stream], np.uint64))

    def between(self, least: int, most: int) -> int:
        """An integer from `least` to `most`, both included, all alike (to 2^-64)."""
        return least + (int(self._bits.random_raw()) * (most - least + 1) >> 64)

    def of(self, choices):
        """One of a list."""
        return choices[self.between(0, len(choices) - 1)]
