"""Recordings whose transcripts stand in files."""

import numpy as np
import pytest

from kdjax import config, tasks
from kdjax.contexts import Splits
from kdjax.data import Transcripts, sources
from kdjax.data.sources import TranscriptFiles
from kdjax.parse import parse
from kdjax.types import BadInput
from tests.data.sources.test_recordings import RATE, tone, write

SAID = {"train/0.wav": "ab", "train/1.wav": "b a", "test/2.wav": "ba", "test/3.wav": ""}


@pytest.fixture
def folder(tmp_path):
    for i, name in enumerate(SAID):
        write(tmp_path / "talks" / name, tone(20 + i, n=300 + 10 * i))
    table = "path,text\n" + "".join(f"{name},{text}\n" for name, text in SAID.items())
    (tmp_path / "talks" / "said.csv").write_text(table)
    return tmp_path / "talks"


def read(folder, split="train", **how):
    return sources.recordings(
        split, root=folder, rate=RATE, transcripts=TranscriptFiles(**{"files": "said.csv", **how})
    )


def texts_of(found):
    return {found.target.text(row) for row in found.labels}


def test_a_column_of_a_table(folder):
    train, test = read(folder), read(folder, "test")
    assert train.target == test.target == Transcripts((" ", "a", "b"), 3)
    assert texts_of(train) == {"ab", "b a"}
    assert texts_of(test) == {"ba", ""}
    assert test.shown.sum() == 1
    (note,) = test.notes
    assert "1 of 4 recordings" in note
    assert "such as test/3.wav" in note
    for row, samples in enumerate(train.read(np.arange(2))["audio"]):
        text = train.target.text(train.labels[row])
        length = train.lengths["audio"][row]
        number = {"ab": 0, "b a": 1}[text]
        np.testing.assert_array_equal(samples[:length], tone(20 + number, n=300 + 10 * number))


def test_columns_of_other_names_and_endings_left_out(folder):
    lines = "".join(f"{text}\t{name[:-4]}\n" for name, text in SAID.items())
    (folder / "said.tsv").write_text("said\tid\n" + lines)
    found = read(folder, files="said.tsv", path="id", text="said", alphabet=("b", "a", " ", "x"))
    assert found.target == Transcripts(("b", "a", " ", "x"), 3)
    assert texts_of(found) == {"ab", "b a"}


def test_lines_that_begin_with_a_name_one_file_a_folder(folder):
    """As LibriSpeech has them; words are units, if asked for."""
    for split in ("train", "test"):
        lines = [f"{k[-5:-4]} {text}".strip() for k, text in SAID.items() if k.startswith(split)]
        (folder / split / f"{split}.trans.txt").write_text("\n".join(lines) + "\n")
    assert texts_of(read(folder, files="**/*.trans.txt")) == {"ab", "b a"}
    words = read(folder, files="**/*.trans.txt", unit="words")
    assert words.target == Transcripts(("a", "ab", "b", "ba"), 2, "words")
    assert texts_of(words) == {"ab", "b a"}


def test_names_and_texts_parted_by_tabs_and_names_as_other_machines_write_them(folder):
    """As Kaldi reads them: any spaces and tabs. A name is told by its letters, composed or not."""
    (folder / "train" / "0.wav").rename(folder / "train" / "e\u0301.wav")
    (folder / ".trash").mkdir()
    (folder / ".trash" / "said.txt").write_text("x y\n")
    (folder / "said.txt").write_bytes(
        "\ufefftrain/\u00e9\tab\r\n\r\ntrain/1 \t b \u200ca\r\ntest/2.wav\r\n".encode()
    )
    found = read(folder, files="**/said.txt")
    assert texts_of(found) == {"ab", "b \u200ca"}


def test_lines_that_end_as_on_old_machines_are_not_one_transcript(folder):
    (folder / "said.txt").write_bytes(b"train/0 ab\rtrain/1 b a\r")
    with pytest.raises(
        BadInput, match=r"^transcripts\.files: line 1 of said\.txt has carriage ret"
    ):
        read(folder, files="said.txt")


def change(text):
    return lambda folder: (folder / "said.csv").write_text("path,text\n" + text)


@pytest.mark.parametrize(
    ("spoil", "how", "line"),
    [
        (None, {"alphabet": ("a", "b")}, "transcripts.alphabet: ' ' of the transcript of train/1.wav "
         "(line 3 of said.csv) is not one of its 2 characters; add it, or change the transcript"),
        (None, {"files": "no.csv"}, "transcripts.files: "),
        (None, {"files": "../said.csv"}, "transcripts.files: the pattern has ../said.csv, which climbs"),
        (None, {"text": "words"}, "transcripts.text: "),
        (None, {"path": "file"}, "transcripts.path: "),
        (change("train/9.wav,a\n"), {}, "transcripts.files: line 2 of said.csv names train/9.wav, and "
         "there is no such recording; mend the line"),
        (change("train/0.wav,a\ntrain/0,b\n"), {}, "transcripts.files: line 3 of said.csv is of "
         "train/0.wav (line 2 of said.csv), which has a transcript; remove one"),
        (change("../0.wav,a\n"), {}, "transcripts.files: line 2 of said.csv has ../0.wav, which climbs"),
        (change("train/0.wav,\n"), {}, "transcripts.alphabet: "),
        (change("train/0.wav\n"), {}, "transcripts.files: line 2 of said.csv has not as many columns"),
        (change('train/0.wav,"a\ntrain/1.wav,b"\ntest/2.wav,a\n'), {}, "transcripts.files: lines 2 to 3 "
         "of said.csv are one cell of 'text', from one quotation mark to another; write each"),
        (change("train/0.wav,a\0b\n"), {}, "transcripts.alphabet: '\\x00' of the transcript of "
         "train/0.wav (line 2 of said.csv) cannot be seen; remove it, or give an alphabet that has it"),
        (change("train/0.wav,a\u200bb\n"), {}, "transcripts.alphabet: '\\u200b' of the transcript of "),
        (None, {"files": "."}, "transcripts.files: '.' is no path and no pattern of some; such as"),
        (None, {"files": "./"}, "transcripts.files: './' is no path and no pattern of some; such as"),
        (None, {"files": "**x/*"}, "transcripts.files: '**x/*' is no path and no pattern of some"),
    ],
)  # fmt: skip
def test_what_is_refused_in_one_line(spoil, how, line, folder):
    if spoil is not None:
        spoil(folder)
    with pytest.raises(BadInput) as caught:
        read(folder, **how)
    assert str(caught.value).startswith(line)
    assert "\n" not in str(caught.value)


def test_a_name_of_two_recordings_is_refused(folder):
    write(folder / "train" / "0.wave", tone(9))
    change("train/0,a\n")(folder)
    with pytest.raises(BadInput, match="names train/0, and several are called so"):
        read(folder)


def test_in_a_config(folder):
    fields = {
        "kind": "recordings",
        "root": str(folder),
        "rate": RATE,
        "transcripts": {"files": "said.csv"},
    }

    def of(**changes):
        return parse(config.Data, {"name": "x", "source": {**fields, **changes}}, "config.data")

    found = of().source.dataset("train", data_dir=None, kept=None)
    assert found.fingerprint == read(folder).fingerprint
    for changes, line in (
        ({"labels": "first"}, "source.labels: folders are classes"),
        ({"classes": 2}, "source.classes: transcripts have an"),
        (
            {"transcripts": {"files": "said.csv", "alphabet": ("ab",)}},
            "source.transcripts.alphabet: 'ab' is not a single character",
        ),
    ):
        with pytest.raises(BadInput) as caught:
            of(**changes)
        assert str(caught.value).startswith(f"config.data.{line}")
    strange = of(transcripts={"files": "said.csv", "alphabet": ("a", " ")})
    with pytest.raises(BadInput) as caught:
        strange.source.dataset("train", data_dir=None, kept=None)
    assert str(caught.value).startswith(
        "data.source.transcripts.alphabet: 'b' of the transcript of test/2.wav (line 4 of said.csv)"
    )


def test_recordings_without_any_are_asked_for_them(folder):
    """As a teacher that is brought answers them: its student needs no transcript."""
    fields = {
        "name": "x",
        "source": {"kind": "recordings", "root": str(folder), "rate": RATE, "labels": "none"},
        "target": {"kind": "transcripts", "alphabet": ["b", "a", " "]},
    }
    splits = Splits(parse(config.Data, fields, "config.data"))
    assert splits.is_unlabelled
    assert tasks.of(splits.train) == tasks.CTC(alphabet=("b", "a", " "))
    with pytest.raises(
        BadInput, match=r"^config\.data\.target\.alphabet: 'ab' is not a single char"
    ):
        parse(
            config.Data,
            {**fields, "target": {"kind": "transcripts", "alphabet": ["ab"]}},
            "config.data",
        )
