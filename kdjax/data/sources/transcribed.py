"""Transcripts of recordings as people keep them: columns of tables, and lines that begin with a name."""

import dataclasses
import os
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import NamedTuple

import numpy as np
from jaxtyping import Int32

from kdjax.data.sources.folders import File
from kdjax.data.sources.options import shown
from kdjax.data.sources.rows import csv_rows, text_lines
from kdjax.data.sources.tables import inside
from kdjax.data.targets import Target
from kdjax.data.transcripts import Unit, transcripts_of
from kdjax.types import BadInput, under

_TABLES = (".csv", ".tsv")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TranscriptFiles:
    """Where the transcripts of a folder's recordings are.

    Attributes:
      files: a path below the folder, or a pattern of several, as `**/*.trans.txt`. CSV and TSV files have
        a line with the names of their columns; a line of another file is the name of a recording,
        spaces or tabs, and its transcript, as Kaldi's `text` and LibriSpeech's files have them.
      path: the column of a recording's path, relative to the file, its ending may be left out.
      text: the column of its transcript; empty where there is none.
      alphabet: the symbols that there may be, in their order; those of all transcripts by default.
      unit: a symbol is one of the `characters`, or one of the `words`.
    """

    files: str
    path: str = "path"
    text: str = "text"
    alphabet: tuple[str, ...] | None = None
    unit: Unit = "characters"


class _Line(NamedTuple):
    """A transcript: where it stands, the recording that it names, and what it says."""

    where: str
    key: str
    text: str


def labels_by(
    given: TranscriptFiles, recordings: Sequence[File], root: str
) -> tuple[Int32[np.ndarray, "n positions"], Target, list[str]]:
    """The transcript of each recording, what it is of, and what is to be said of them.

    Args:
      given: where they are.
      recordings: of the folder.
      root: the folder.

    Raises:
      BadInput: a file is not there or cannot be read, a line names no recording or one that has a
        transcript, or a symbol is not in the alphabet.
    """
    texts: list[str | None] = [None] * len(recordings)
    where = [shown(file.name) for file in recordings]
    rows = _rows_by_name(recordings)
    with under("transcripts", {"root": "files"}):
        for line in _lines(given, root):
            found = rows.get(_composed(line.key), [])
            if len(found) != 1:
                fault = "there is no such recording" if not found else "several are called so"
                raise BadInput(
                    "files", f"{line.where} names {shown(line.key)}, and {fault}", "mend the line"
                )
            (row,) = found
            if texts[row] is not None:
                raise BadInput(
                    "files",
                    f"{line.where} is of {where[row]}, which has a transcript",
                    "remove one",
                )
            texts[row] = line.text
            where[row] = f"{shown(recordings[row].name)} ({line.where})"
        labels, target = transcripts_of(
            texts, where, alphabet=given.alphabet, unit=given.unit, name=shown(root)
        )
    without = np.flatnonzero(~np.asarray(target.shown(labels)))
    notes = []
    if without.size:
        notes.append(
            f"{len(without)} of {len(recordings)} recordings of {shown(root)} have no transcript, such "
            f"as {shown(recordings[without[0]].name)}"
        )
    return labels, target, notes


def _rows_by_name(recordings: Sequence[File]) -> dict[str, list[int]]:
    """Rows by the name of their recording, and by that without its ending."""
    found: dict[str, list[int]] = {}
    for row, file in enumerate(recordings):
        for name in (file.name, os.path.splitext(file.name)[0]):
            found.setdefault(_composed(name), []).append(row)
    return found


def _composed(name: str) -> str:
    """A name as it looks, however its letters are put together: macOS has another way than most texts."""
    return unicodedata.normalize("NFC", name)


def _lines(given: TranscriptFiles, root: str) -> list[_Line]:
    """All transcripts, with the recordings that they name relative to the root."""
    inside(given.files, "the pattern")
    parts = PurePath(given.files).parts
    # Said of the pattern itself: what pathlib refuses, and how, is another thing in each Python.
    if not parts or any("**" in part and part != "**" for part in parts):
        raise BadInput(
            "files", f"{given.files!r} is no path and no pattern of some", "such as **/*.trans.txt"
        )
    matching = sorted(Path(root).glob(given.files))
    names = {file: file.relative_to(root) for file in matching if file.is_file()}
    files = [file for file, name in names.items() if str(name) == given.files or _is_seen(name)]
    if not files:
        raise BadInput(
            "files", f"{shown(root)} has no file {given.files}", "name one, or a pattern of some"
        )
    found = []
    for file in files:
        name = file.relative_to(root).as_posix()
        lines = _table if name.lower().endswith(_TABLES) else _text
        beside = os.path.dirname(name)
        for where, key, text in lines(given, name, str(file)):
            found.append(_Line(where, os.path.join(beside, inside(key, where)), text))
    return found


def _is_seen(name: PurePath) -> bool:
    """Whether neither a file nor a folder that it lies in is hidden, as recordings are found."""
    return not any(part.startswith(".") for part in name.parts)


def _table(given: TranscriptFiles, name: str, path: str) -> list[_Line]:
    rows = csv_rows(name, path, {"path": [given.path], "text": [given.text]})
    return [_Line(row.where, row.cells[given.path], row.cells[given.text]) for row in rows]


def _text(given: TranscriptFiles, name: str, path: str) -> list[_Line]:
    parted = (
        (where, *re.split(r"[ \t]+", line.strip(), maxsplit=1), "")
        for where, line in text_lines(name, path)
    )
    return [_Line(where, key, text) for where, key, text, *_ in parted if key]
