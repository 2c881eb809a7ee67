"""Synthetic utterances: what is drawn, and that nothing of the test is heard in training."""

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest

from kdjax import config
from kdjax.data import Transcripts, sources
from kdjax.data.sources import Joining
from kdjax.data.sources.connected import _Bits, _draw, _Spoken
from kdjax.parse import parse
from kdjax.types import BadInput

HOW = {
    "set": "spoken_digit:1.0.10",
    "rate": 8000,
    "utterances": 12,
    "test_utterances": 6,
    "test_speakers": ("lucas", "yweweler"),
}


@pytest.fixture(scope="module")
def directory():
    found = os.environ.get("KDJAX_DATA_DIR")
    if found is None or not (Path(found) / "spoken_digit").is_dir():
        pytest.skip("no spoken_digit is prepared: set KDJAX_DATA_DIR to a directory that has it")
    return found


def read(directory, split="train", **how):
    return sources.connected_words(split, data_dir=directory, **{**HOW, **how})


def words_of(samples, length):
    """The pieces of an utterance between its pauses of zeros of 400 samples or more."""
    loud = np.flatnonzero(samples[:length])
    ends = np.flatnonzero(np.diff(loud) > 400)
    begins = [loud[0], *loud[ends + 1]]
    return [samples[a : b + 1] for a, b in zip(begins, [*loud[ends], loud[-1]], strict=True)]


def recordings(directory):
    """Each recording of the set by its speaker, its digit and its samples, without zeros at its ends."""
    from kdjax.data.prepared import builder_of, folder_of
    from kdjax.data.records import Records

    builder = builder_of(folder_of(HOW["set"], directory))
    for split in ("train", "test"):
        records = Records(builder, split, name="x", keys=["audio", "audio/filename", "label"])
        for one in records.read(range(len(records))):
            speaker = one["audio/filename"].decode().split("_")[1]
            loud = np.flatnonzero(one["audio"])
            yield split, speaker, int(one["label"]), one["audio"][loud[0] : loud[-1] + 1]


def test_every_word_is_a_recording_of_a_speaker_who_is_on_that_side_alone(directory):
    """Without levels the samples are those of the set, to be found again in it."""
    known = {
        own.tobytes(): (split, speaker, label)
        for split, speaker, label, own in recordings(directory)
    }
    as_recorded = {"joining": Joining(levels=(0.0, 0.0), pauses=(0.1, 0.3))}
    for speakers in (HOW["test_speakers"], ()):
        sides = {}
        for split in ("train", "test"):
            found = read(directory, split, test_speakers=speakers, **as_recorded)
            assert len(found) == {"train": 12, "test": 6}[split]
            batch = found.read(np.arange(len(found)))
            sides[split] = set()
            for row, samples in enumerate(batch["audio"]):
                length = batch["audio_length"][row]
                digits = [int(word) for word in found.target.text(found.labels[row]).split()]
                heard = words_of(samples, length)
                exact = [known.get(one.tobytes()) for one in heard]
                if len(heard) == len(digits):  # none has a long silence in its midst
                    assert None not in exact
                    assert [label for _, _, label in exact] == digits
                    assert len({speaker for _, speaker, _ in exact}) == 1
                sides[split] |= {one for one in exact if one is not None}
        assert min(map(len, sides.values())) >= 10
        by = {split: {speaker for _, speaker, _ in own} for split, own in sides.items()}
        if speakers:
            assert not by["train"] & by["test"]
            assert by["test"] <= {*speakers}
        else:
            assert {split for split, _, _ in sides["train"]} == {"train"}
            assert {split for split, _, _ in sides["test"]} == {"test"}


def test_the_same_seed_gives_the_same_samples(directory):
    """On any machine: this is what they are."""
    found = read(directory)
    inputs = found.inputs()
    digest = hashlib.sha256(inputs["audio"][:, :20_000].astype("<i2").tobytes()).hexdigest()
    assert digest[:16] == "ad0d22752bafb78a"
    assert found.target.text(found.labels[0]) == "7 6 4 7 1"
    again, other = read(directory), read(directory, joining=Joining(seed=1))
    assert again.fingerprint == found.fingerprint != other.fingerprint
    # More utterances leave the others as they are, but for the length that all are padded to.
    more = read(directory, utterances=14)
    np.testing.assert_array_equal(more.ids[:12], found.ids)
    np.testing.assert_array_equal(more.labels[:12], found.labels)


def test_what_they_are_called_and_of(directory):
    train, test = read(directory), read(directory, "test")
    assert train.target == test.target == Transcripts(tuple("0123456789"), 5, "words")
    assert train.fields == test.fields
    assert train.name == "synthetic utterances of spoken_digit:1.0.10 train"
    assert train.notes[0] == (
        "train has 12 synthetic utterances, joined of 2000 recordings of george, jackson, nicolas, theo; "
        "test has 6 synthetic utterances, joined of 1000 recordings of lucas, yweweler"
    )
    counts = (train.labels >= 0).sum(-1)
    assert (counts.min(), counts.max()) == (2, 5)
    assert len(read(directory, "train[:50%]")) == 6
    assert len(read(directory, "train+test")) == 18
    half = read(directory, rate=4000)
    np.testing.assert_allclose(
        half.lengths["audio"], np.ceil(train.lengths["audio"] / 2), rtol=0, atol=0
    )


def test_draws_are_even_and_within_their_ends():
    bits = _Bits(0, "x")
    found = np.asarray([bits.between(3, 7) for _ in range(5000)])
    np.testing.assert_array_equal(np.unique(found), [3, 4, 5, 6, 7])
    assert np.bincount(found)[3:].min() > 900
    assert [_Bits(5, "a").between(0, 99) for _ in range(2)] == [_Bits(5, "a").between(0, 99)] * 2
    assert len({_Bits(seed, name).between(0, 2**60) for seed in (0, 1) for name in "ab"}) == 4


def test_levels_and_pauses_by_hand():
    tone = np.full(100, 20_000, np.int16)
    own = {"a": [_Spoken("a", "0", 0, tone)]}
    how = Joining(words=(3, 3), pauses=(0.01, 0.02), levels=(-6.0, 6.0))
    levels = []
    for number in range(50):
        drawn = _draw(own, how, "train", number, rate=1000)
        samples = drawn.samples()
        assert all(10 <= pause <= 20 for pause in drawn.pauses)
        assert len(drawn.pauses) == 4
        assert len(samples) == 300 + sum(drawn.pauses)
        begin = drawn.pauses[0]
        for level, pause in zip(drawn.levels, drawn.pauses[1:], strict=True):
            piece = samples[begin : begin + 100]
            np.testing.assert_array_equal(piece, min(32767, (20_000 * level + 2**14) >> 15))
            assert not samples[begin + 100 : begin + 100 + pause].any()
            begin += 100 + pause
            levels.append(20 * np.log10(level / 2**15))
    assert -6.01 < min(levels) < -5
    assert 5 < max(levels) < 6.01


@pytest.mark.parametrize(
    ("how", "line"),
    [
        ({"test_speakers": ("nobody",)}, "test_speakers: 'nobody' is no speaker; they are george, "),
        ({"test_speakers": ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")},
         "test_speakers: nobody is left to learn from"),
        ({"speaker": "-(.*)-"}, "speaker: '-(.*)-' finds no group in "),
        ({"file": "name"},
         "file: spoken_digit:1.0.10 has no feature 'name'; it has audio, audio/filename, label"),
        ({"audio": "sound"},
         "audio: spoken_digit:1.0.10 has no feature 'sound'; it has audio, audio/filename, label"),
        ({"rate": 0}, "rate: 0; give samples a second"),
        ({"split": "valid"}, "data: split 'valid': synthetic utterances of spoken_digit:1.0.10 has "),
        ({"longest": 0.2}, "longest: 0.2 s, and train utterance 0 of "),
        ({"set": "spoken"}, "set: "),
    ],
)  # fmt: skip
def test_what_is_refused_in_one_line(how, line, directory):
    with pytest.raises(BadInput) as caught:
        read(directory, **how)
    assert str(caught.value).startswith(line)
    assert "\n" not in str(caught.value)


def test_in_a_config(directory):
    fields = {**HOW, "kind": "connected_words", "pauses": [0.0, 0.2], "words": [1, 3]}

    def of(**changes):
        return parse(config.Data, {"name": "x", "source": {**fields, **changes}}, "config.data")

    found = of().source.dataset("test", data_dir=directory, kept=None)
    asked = read(directory, "test", joining=Joining(words=(1, 3), pauses=(0.0, 0.2)))
    assert found.fingerprint == asked.fingerprint
    for changes, line in (
        ({"words": [3, 2]}, "source.words: 3 is above 2; give the least and the most"),
        ({"levels": [0.0, -3.0]}, "source.levels: 0 is above -3"),
        ({"speaker": "_"}, "source.speaker: '_' has no group"),
    ):
        with pytest.raises(BadInput) as caught:
            of(**changes)
        assert str(caught.value).startswith(f"config.data.{line}")
