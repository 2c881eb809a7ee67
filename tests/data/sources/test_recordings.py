"""Recordings: what lies in a folder, and what is prepared, as samples."""

import contextlib
import os
import shutil
import struct
import wave
from pathlib import Path

import numpy as np
import pytest

from kdjax import config, data
from kdjax.data import sources
from kdjax.data.sources.waves import fitted, is_clipped, read_file, resampled
from kdjax.parse import parse
from kdjax.types import BadInput

RATE = 800
WORDS = ("no", "yes")


def tone(hertz, n=400, rate=RATE, loud=9000):
    return np.rint(loud * np.sin(2 * np.pi * hertz * np.arange(n) / rate)).astype(np.int16)


def write(path: Path, samples, *, rate=RATE, width=2, channels=1):
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        if width == 2:
            content = np.asarray(samples, "<i2").tobytes()
        elif width == 1:
            content = (np.asarray(samples) // 256 + 128).astype(np.uint8).tobytes()
        else:
            whole = np.asarray(samples, np.int64) << (8 * (width - 2))
            content = whole.astype("<i4").view(np.uint8).reshape(-1, 4)[:, :width].tobytes()
        file.writeframes(content)


@pytest.fixture
def folder(tmp_path):
    for i in range(24):
        write(tmp_path / "words" / WORDS[i % 2] / f"{i}.wav", tone(20 + i, n=300 + 10 * i))
    return tmp_path / "words"


def read(folder, split="train", **how):
    return sources.recordings(split, root=folder, **{"rate": RATE, **how})


def test_each_as_long_as_it_is(folder):
    found = read(folder)
    assert list(found.fields) == ["audio", "audio_length"]
    assert found.fields["audio"].shape == (530,)
    assert found.fields["audio"].dtype == "int16"
    assert found.fields["audio"].ragged
    assert found.target == data.Classes(2, WORDS)
    batch = found.read(np.arange(24))
    for samples, length, label in zip(
        batch["audio"], batch["audio_length"], found.labels, strict=True
    ):
        i = (length - 300) // 10
        assert label == i % 2
        np.testing.assert_array_equal(samples[:length], tone(20 + i, n=length))
        assert not samples[length:].any()


def test_all_of_one_length_the_middle_of_longer_ones(folder):
    found = read(folder, seconds=0.5)  # 400 samples
    assert list(found.fields) == ["audio"]
    whole = read(folder)
    for row in range(24):
        (samples,) = found.read(np.array([row]))["audio"]
        both = whole.read(np.array([row]))
        (before,), (length,) = both["audio"], both["audio_length"]
        begin = max(0, length - 400) // 2
        wanted = before[begin : min(length, begin + 400)]
        np.testing.assert_array_equal(samples[: len(wanted)], wanted)
        assert not samples[len(wanted) :].any()
    np.testing.assert_array_equal(fitted(np.arange(5, dtype=np.int16), 2), [1, 2])
    np.testing.assert_array_equal(fitted(np.arange(2, dtype=np.int16), 4), [0, 1, 0, 0])


@pytest.mark.parametrize(("width", "off"), [(1, 255), (2, 0), (3, 0), (4, 0)])
def test_other_numbers_of_bits(width, off, tmp_path):
    samples = tone(30)
    write(tmp_path / "a" / "x.wav", samples, width=width)
    write(tmp_path / "b" / "y.wav", samples[::-1], width=width)
    found = read(tmp_path)
    row = int(np.flatnonzero(found.labels == 0)[0])
    (heard,) = found.read(np.array([row]))["audio"]
    assert 0 <= (samples.astype(int) - heard).max() <= off


def test_another_rate_is_resampled(tmp_path):
    """A tone stays the tone, to a thousandth of full scale away from its ends."""
    for name, rate in (("a", 1600), ("b", 600)):
        write(tmp_path / name / "x.wav", tone(50, n=rate, rate=rate), rate=rate)
    write(tmp_path / "b" / "y.wav", tone(50, n=RATE), rate=RATE)
    found = read(tmp_path)
    (said,) = found.notes
    assert "2 of 3 recordings of" in said
    assert f"are resampled to {RATE} Hz, such as {tmp_path}" in said
    assert said.endswith(("/a/x.wav (1600 Hz)", "/b/x.wav (600 Hz)"))
    wanted = tone(50, n=RATE)
    for samples in found.read(np.arange(3))["audio"]:
        assert len(samples) == RATE
        assert np.abs(samples[50:-50].astype(int) - wanted[50:-50]).max() < 33
    loud = np.full(100, 2**15 - 1, np.int16)
    assert resampled(loud, 800, 1600).min() > 0  # held within the bits, not wrapped


def test_splits_by_folder_and_by_rule(folder, tmp_path):
    train, test = (read(folder, split, test_share=0.4) for split in ("train", "test"))
    assert 0 < len(test) < 24
    assert len(train) + len(test) == 24
    assert not {*train.ids} & {*test.ids}
    os.remove(next(folder.glob("no/*.wav")))
    assert {*read(folder, "test", test_share=0.4).ids} <= {*test.ids}
    for split in ("train", "test"):
        for word in WORDS:
            write(tmp_path / "parted" / split / word / "1.wav", tone(len(split + word)))
    assert len(read(tmp_path / "parted", "test")) == 2
    with pytest.raises(BadInput, match="which say it"):
        read(tmp_path / "parted", "test", test_share=0.1)


def test_another_kind_beside_its_conversion_is_left_out_and_by_itself_refused(folder):
    (folder / "no" / "0.mp3").write_bytes(b"ID3")
    assert len(read(folder)) == 24
    (folder / "no" / "99.mp3").write_bytes(b"ID3")
    with pytest.raises(BadInput, match=r"^root: no/99\.mp3 is a sound of a kind"):
        read(folder)


def test_what_is_there_twice_is_said(folder, tmp_path):
    shutil.copy(folder / "no" / "0.wav", folder / "yes" / "0.wav")
    shutil.copy(folder / "no" / "2.wav", folder / "no" / "again.wav")
    torn, twice = read(folder).notes
    assert "1 recording is there twice with different labels" in torn
    assert "such as no/0.wav, which is yes/0.wav; remove the wrong one" in torn
    assert "1 recording is there twice" in twice
    assert "such as no/2.wav, which is no/again.wav" in twice
    parted = tmp_path / "parted"
    for i, split in enumerate(("train", "test")):
        for j, word in enumerate(WORDS):
            write(parted / split / word / "1.wav", tone(20 + 2 * i + j))
    assert not read(parted, "test").notes
    shutil.copy(parted / "train" / "no" / "1.wav", parted / "test" / "yes" / "2.wav")
    for split, pair in (
        ("test", "test/yes/2.wav, which is train/no/1.wav"),
        ("train", "which is test"),
    ):
        (note,) = read(parted, split).notes
        assert f"1 recording is in {split} and in another split of" in note
        assert pair in note
        assert "what is measured on them is too good" in note
    (note,) = read(parted, "train+test").notes
    assert "1 recording is in two splits" in note


@pytest.mark.parametrize(
    ("folders", "refused"),
    [
        (("no", "no "), True),
        (("\u00e9", "e\u0301"), True),
        (("train/No", "train/yes", "test/no", "test/yes"), True),
        (("a", "A"), False),  # letters are classes
        (("train/a", "train/A", "test/a"), False),
    ],
)
def test_two_names_of_one_class_are_refused(folders, refused, tmp_path):
    for i, name in enumerate(folders):
        write(tmp_path / "words" / name / "0.wav", tone(20 + i))
    if not refused:
        assert read(tmp_path / "words").target.classes == 2
        return
    with pytest.raises(
        BadInput, match=r"^root: .* has folders .*, which would be two classes; give"
    ):
        read(tmp_path / "words")


def test_what_is_said_of_clipped_and_short_ones(folder):
    write(folder / "no" / "loud.wav", np.clip(5 * tone(10).astype(int), -(2**15), 2**15 - 1))
    write(folder / "no" / "short.wav", tone(10, n=20))
    found = read(folder, skip_short=0.1)
    assert len(found) == 25
    short, clipped = found.notes
    assert "1 of 26 recordings" in short
    assert "1 of 25 recordings" in clipped
    assert "loud.wav" in clipped
    assert not is_clipped(tone(3, loud=2**15 - 1)[:100])
    for end, clipped in ((2**15 - 1, True), (127 * 256, True), (-(2**15), True), (9000, False)):
        assert is_clipped(np.asarray([5, *[end] * 8, -5], np.int16)) == clipped  # also of 8 bits
        assert not is_clipped(np.asarray([5, *[end] * 7, -5, end], np.int16))
    assert not is_clipped(np.zeros(0, np.int16))


def stereo(folder):
    write(folder / "no" / "bad.wav", np.stack([tone(5), tone(6)], 1), channels=2)


def cut_off(folder):
    path = folder / "no" / "bad.wav"
    write(path, tone(5))
    path.write_bytes(path.read_bytes()[:-101])


def no_sound(folder):
    (folder / "no" / "bad.wav").write_bytes(b"\x89PNG\r\n" + bytes(99))


def riff(kind, bits, content, *, rate=RATE, declared=None, more=b"", channels=1):
    """A WAV file by hand: its format, a chunk of notes of an odd size, and the samples."""
    align = channels * bits // 8
    layout = struct.pack("<HHIIHH", kind, channels, rate, rate * align, align, bits) + more
    chunks = [(b"fmt ", layout, None), (b"LIST", b"abc", None), (b"data", content, declared)]
    body = b"".join(
        name + struct.pack("<I", len(own) if size is None else size) + own + b"\0" * (len(own) % 2)
        for name, own, size in chunks
    )
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WAVE" + body


def bad(*args, **how):
    return lambda folder: (folder / "no" / "bad.wav").write_bytes(riff(*args, **how))


def of_other_kinds(folder):
    for path in [*folder.rglob("*.wav")]:
        path.rename(path.with_suffix(".mp3"))


@pytest.mark.parametrize(
    ("spoil", "how", "path", "words"),
    [
        (lambda f: write(f / "no" / "bad.wav", []), {}, "data", "bad.wav is empty"),
        (stereo, {}, "root", "bad.wav has 2 channels"),
        (cut_off, {}, "root", "bad.wav is cut off"),
        (no_sound, {}, "root", "bad.wav is no WAV file"),
        (bad(7, 8, bytes(99)), {}, "root", "bad.wav is a WAV file of kind 7 with 8 bits"),
        (bad(1, 16, bytes(9), channels=0), {}, "root", "and 0 channels"),
        (bad(1, 16, bytes(8), rate=0), {}, "root", "bad.wav has 0 samples a second"),
        (
            bad(1, 16, bytes(8), declared=2**32 - 1),
            {},
            "root",
            "bad.wav does not say how long it is",
        ),
        (
            bad(3, 32, np.asarray([0, np.nan], "<f4").tobytes()),
            {},
            "root",
            "samples that are no numbers",
        ),
        (
            bad(3, 32, np.asarray([9000.0], "<f4").tobytes()),
            {},
            "root",
            "has floats up to 9e+03, where 1",
        ),
        (lambda f: (f / "no" / "bad.wav").write_bytes(b""), {}, "root", "bad.wav is empty"),
        (
            lambda f: (f / "no" / "bad.wav").write_bytes(b"RIFF\0\0\0\0WAVEfmt \xff\xff\xff\xff"),
            {},
            "root",
            "it ends before its samples",
        ),
        (of_other_kinds, {}, "root", "no/0.mp3 is a sound of a kind that is not read; convert it"),
        (None, {"rate": 0}, "rate", "give samples a second"),
        (None, {"seconds": 0.0}, "seconds", "above zero"),
        (None, {"seconds": 1.0, "longest": 1.0}, "longest, seconds", "one of the two"),
        (None, {"longest": 0.5}, "longest", "0.5 s, and "),
        (None, {"longest": 0.66}, "longest", "yes/23.wav has 0.6625; give more, cut it"),
        (None, {"skip_short": 9.0}, "skip_short", "all of"),
        (None, {"split": "valid"}, "data", "has train"),
    ],
)
def test_what_is_refused_in_one_line(spoil, how, path, words, folder):
    if spoil is not None:
        spoil(folder)
    with pytest.raises(BadInput) as caught:
        read(folder, **how)
    assert caught.value.path == path
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", ["flac", "ogg"])
def test_files_of_other_kinds(suffix, folder):
    """FLAC keeps every bit; Vorbis keeps the sound."""
    soundfile = pytest.importorskip("soundfile", reason="soundfile is not installed")
    samples = tone(50, n=4000, rate=8000)
    path = folder / "no" / f"other.{suffix}"
    soundfile.write(path, samples, 8000)
    heard = read_file(str(path))
    assert heard.rate == 8000
    error = heard.samples.astype(int) - samples
    assert not error.any() if suffix == "flac" else np.abs(error).mean() < 300
    assert len(read(folder)) == 25
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(BadInput, match=f"other.{suffix} cannot be read"):
        read(folder)


def test_floats_and_the_longer_header_are_what_integers_of_16_bits_say(tmp_path):
    """Their full scale is 1; what is beyond it is held there."""
    floats = np.asarray([0.0, 0.5, -0.25, 1.5 / 2**15, 1.0, 1.25, -1.0, -2.0])
    wanted = [0, 2**14, -(2**13), 2, 2**15 - 1, 2**15 - 1, -(2**15), -(2**15)]
    whole = np.asarray([2**23 - 1, -(2**23), 256 * 5 + 128], "<i4")
    of_24 = (whole << 8).astype("<i4").view(np.uint8).reshape(-1, 4)[:, 1:].tobytes()
    tail = b"\0\0\0\0\x10\0\x80\0\0\xaa\0\x38\x9b\x71"
    for name, content, found in (
        ("f", riff(3, 32, floats.astype("<f4").tobytes()), wanted),
        ("d", riff(3, 64, floats.astype("<f8").tobytes()), wanted),
        ("long", riff(0xFFFE, 24, of_24, more=struct.pack("<HHIH", 22, 24, 4, 1) + tail),
         [2**15 - 1, -(2**15), 6]),
        ("none", riff(0xFFFE, 32, b"", more=struct.pack("<HHIH", 22, 32, 4, 3) + tail), []),
    ):  # fmt: skip
        (tmp_path / f"{name}.wav").write_bytes(content)
        heard = read_file(str(tmp_path / f"{name}.wav"))
        np.testing.assert_array_equal(heard.samples, found)
        assert heard.samples.dtype == np.int16
        assert heard.rate == RATE


def test_what_is_beyond_full_scale_in_vorbis_is_held_there(tmp_path):
    """libsndfile's own integers turn around: 1.07 of full scale is -0.93 there."""
    soundfile = pytest.importorskip("soundfile", reason="soundfile is not installed")
    path = str(tmp_path / "loud.ogg")
    soundfile.write(path, 0.999 * np.sign(np.sin(np.arange(8000) / 5.1)), 8000)
    floats, _ = soundfile.read(path, dtype="float64")
    heard = read_file(path).samples
    assert np.abs(floats).max() > 1.1
    np.testing.assert_array_equal(heard, np.clip(np.rint(floats * 2**15), -(2**15), 2**15 - 1))


def test_flac_of_24_bits_is_rounded_as_a_wave_is(tmp_path):
    soundfile = pytest.importorskip("soundfile", reason="soundfile is not installed")
    whole = np.random.default_rng(0).integers(-(2**23), 2**23, 999).astype(np.int32)
    for name in ("x.flac", "x.wav"):
        soundfile.write(str(tmp_path / name), whole << 8, 8000, subtype="PCM_24")
        heard = read_file(str(tmp_path / name)).samples
        np.testing.assert_array_equal(heard, np.clip((whole + 128) // 256, -(2**15), 2**15 - 1))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda ogg: ogg[:-1], "is cut off"),
        (lambda ogg: ogg[: ogg.rindex(b"OggS")], "is cut off"),
        (lambda ogg: ogg[: ogg.rindex(b"OggS") + 20], "is cut off"),
        (lambda ogg: ogg + ogg, "has several recordings"),
    ],
)
def test_an_ogg_file_that_libsndfile_would_cut_short_is_refused(spoil, words, tmp_path):
    soundfile = pytest.importorskip("soundfile", reason="soundfile is not installed")
    path = tmp_path / "x.ogg"
    soundfile.write(str(path), tone(50, n=9000, rate=8000), 8000)
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(BadInput, match=f"x.ogg {words}"):
        read_file(str(path))


def test_flac_that_does_not_say_how_long_it_is_is_refused(tmp_path):
    soundfile = pytest.importorskip("soundfile", reason="soundfile is not installed")
    path = tmp_path / "x.flac"
    soundfile.write(str(path), tone(50), 8000)
    content = bytearray(path.read_bytes())
    content[21] &= 0xF0  # the 36 bits of its number of samples
    content[22:26] = bytes(4)
    path.write_bytes(content)
    with pytest.raises(BadInput, match=r"x\.flac does not say how long it is"):
        read_file(str(path))


@pytest.mark.parametrize("seed", range(3))
def test_whatever_a_header_says_is_read_or_refused(seed, tmp_path):
    random, path = np.random.default_rng(seed), tmp_path / "x.wav"
    whole = riff(1, 16, tone(5).tobytes())
    for _ in range(300):
        content = bytearray(
            whole[: random.integers(0, len(whole)) if random.random() < 0.2 else None]
        )
        for at in random.integers(0, 60, 2):
            content[at : at + 1] = bytes([random.choice([0, 1, 3, 8, 254, 255])])
        path.write_bytes(content)
        with contextlib.suppress(BadInput):
            assert read_file(str(path)).samples.ndim == 1


def test_flac_without_its_library_names_the_extra(folder, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "soundfile", None)
    (folder / "no" / "x.flac").write_bytes(b"fLaC")
    with pytest.raises(BadInput, match=r"kdjax\[speech\]"):
        read(folder)


def test_silence_is_no_other_field_than_sound(folder, tmp_path):
    """Its samples are not negative, which those of tokens are not either."""
    for how in ({"seconds": 0.5}, {"longest": 1.0}):
        for i in range(2):
            write(tmp_path / "silent" / WORDS[i] / "0.wav", np.zeros(400 + i))
        silent, heard = read(tmp_path / "silent", **how), read(folder, **how)
        assert silent.fields["audio"] == heard.fields["audio"]
        assert silent.fields["audio"].below is None


def test_in_a_config(folder):
    fields = {"kind": "recordings", "root": str(folder), "rate": RATE, "seconds": 0.5}
    run = parse(config.Data, {"name": "words", "source": fields}, "data")
    found = run.source.dataset("train", data_dir=None, kept=None)
    assert found.fingerprint == read(folder, seconds=0.5).fingerprint
    with pytest.raises(BadInput, match=r"data\.source\.longest: all have one length"):
        parse(config.Data, {"name": "w", "source": {**fields, "longest": 1.0}}, "data")


@pytest.fixture
def prepared_data():
    directory = os.environ.get("KDJAX_DATA_DIR")
    if directory is None or not (Path(directory) / "spoken_digit").is_dir():
        pytest.skip("no spoken_digit is prepared: set KDJAX_DATA_DIR to a directory that has it")
    return directory


def test_spoken_digits(prepared_data):
    found = sources.tfds_sound(
        "test", set="spoken_digit:1.0.10", rate=8000, seconds=1.0, data_dir=prepared_data
    )
    assert len(found) == 300
    assert found.target == data.Classes(10, tuple("0123456789"))
    np.testing.assert_array_equal(np.bincount(found.labels), [30] * 10)
    assert found.fields["audio"].shape == (8000,)
    half = sources.tfds_sound(
        "test[:10%]", set="spoken_digit:1.0.10", rate=4000, data_dir=prepared_data
    )
    assert len(half) == 30
    assert half.fields["audio"].ragged
    last = sources.tfds_sound(
        "test[290:]", set="spoken_digit:1.0.10", rate=8000, seconds=1.0, data_dir=prepared_data
    )
    np.testing.assert_array_equal(
        last.ids, found.ids[290:]
    )  # a recording is the same one in any part
    for fields, path in (
        ({"audio": "sound"}, "audio"),
        ({"audio": "label"}, "audio"),
        ({"label": "audio"}, "label"),
        ({"set": "spoken"}, "set"),
    ):
        with pytest.raises(BadInput) as caught:
            sources.tfds_sound(
                "test",
                **{"set": "spoken_digit:1.0.10", "rate": 8000, "data_dir": prepared_data, **fields},
            )
        assert caught.value.path == path
