"""A folder of pictures."""

import os
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple, Unpack

import numpy as np
from jaxtyping import Int32

from kdjax.data.dataset import Dataset
from kdjax.data.pictures import Unfit
from kdjax.data.sources import splits
from kdjax.data.sources.encoded import Encoded
from kdjax.data.sources.options import How, classes_of, dataset_of, local, shown
from kdjax.data.targets import Target
from kdjax.types import BadInput

SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp")
"""Of pictures, in small letters."""

_OTHER = (".tif", ".tiff", ".heic", ".heif", ".avif", ".jp2", ".jxl", ".ico", ".psd", ".svg")
_JUNK = ("__MACOSX", "@eaDir", "System Volume Information", "$RECYCLE.BIN")
"""Folders that programs leave among the user's."""

Layout = Literal["auto", "splits", "together"]
LabelsFrom = Literal["auto", "first", "last", "none"]


def folder(
    split: str,
    *,
    root: str | os.PathLike[str],
    layout: Layout = "auto",
    labels: LabelsFrom = "auto",
    classes: int | None = None,
    **how: Unpack[How],
) -> Dataset:
    """A split of a folder of JPEG, PNG, WebP, GIF and BMP files.

    The folder is `CLASS/*`, or `train/CLASS/*` beside `test/CLASS/*`, or has its pictures, or those of a
    split, all in one place, which have no labels then. Hidden files and files of other kinds are left
    out. Links are followed.

    Args:
      split: as TFDS writes it: `train`, `train[:90%]`, `test`.
      root: the folder.
      layout: whether its own folders are `splits`, or all pictures lie `together`. `auto` takes them for
        splits where they are called so, all of them.
      labels: whether a picture's class is the `first` folder below, or the `last` one, that it lies in;
        or there is `none`. `auto` takes the folder where every picture lies in one, and not in one
        within another; a single folder says nothing, and is no class.
      classes: how many there are, where they are more than there are folders.
      **how: see `How`; `size` is needed.

    Raises:
      BadInput: the folder is not there, has no pictures or is not so, or see `from_encoded`.
    """
    path = local(root)
    if not os.path.isdir(path):
        raise BadInput("root", f"{path} is a file", "name the folder of the pictures")
    files = found_files(path, SUFFIXES, beside=_OTHER)
    parts = parts_of(files, path, layout)
    found, target, notes = labels_of(files, parts, path, labels=labels, classes=classes)

    def content(row: int) -> bytes:
        file = os.path.join(path, files[row].name)
        if files[row].name.lower().endswith(_OTHER):
            raise Unfit("it is of a kind that is not read; convert it to PNG")
        if not os.path.exists(file) and os.path.islink(file):
            raise Unfit("it is a link that leads nowhere")
        with open(file, "rb") as opened:
            return opened.read()

    encoded = Encoded(
        name=shown(path),
        keys=[os.fsencode(file.name) for file in files],
        shown=lambda row: shown(files[row].name),
        content=content,
        labels=found,
        target=target,
        stamps=np.asarray([file.stamp for file in files], np.int64),
        splits=None
        if parts is None
        else {key: np.flatnonzero([part == key for part in parts]) for key in sorted({*parts})},
        notes=tuple(notes),
    )
    return dataset_of(encoded, split, what={"source": "folder", "root": path}, **how)


class File(NamedTuple):
    """A picture, or a file of another kind that is asked for.

    Attributes:
      name: its path relative to the root, with `/`.
      stamp: size, times of the last writing and the last change in ns, inode; zeros of a link that
        leads nowhere.
    """

    name: str
    stamp: tuple[int, int, int, int]


def found_files(
    root: str, suffixes: tuple[str, ...], *, beside: tuple[str, ...] = (), kind: str = "pictures"
) -> list[File]:
    """All files below a folder that are such by their names, in the order of these.

    Args:
      root: the folder.
      suffixes: of their names, in small letters.
      beside: others that are found, too, though they cannot be read.
      kind: what they are, for messages.

    Raises:
      BadInput: there are none, or a folder cannot be listed.
    """
    files = sorted(_below(root, suffixes + beside), key=lambda file: file.name)
    if not files:
        raise BadInput("root", f"{root} has no {kind}", f"they end in {', '.join(suffixes)}")
    return files


def _below(root: str, suffixes: tuple[str, ...]) -> Iterator[File]:
    pending: list[tuple[str, tuple[str, ...]]] = [("", (os.path.realpath(root),))]
    while pending:
        within, above = pending.pop()
        here = os.path.join(root, within)
        try:
            with os.scandir(here) as entries:
                inside = list(entries)
        except OSError as error:
            raise BadInput("root", f"{shown(here)} cannot be listed ({error.strerror})") from None
        for entry in inside:
            name = f"{within}{entry.name}"
            if entry.name.startswith(".") or entry.name in _JUNK:
                continue
            if _is_folder(entry):
                real = os.path.realpath(entry.path) if entry.is_symlink() else entry.path
                if real in above:
                    raise BadInput(
                        "root", f"{shown(entry.path)} is a link in a circle", "remove the link"
                    )
                pending.append((f"{name}/", (*above, real)))
            elif entry.name.lower().endswith(suffixes):
                yield File(name, _stamp(entry))


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # links that lead to each other
        return False


def _stamp(entry: os.DirEntry) -> tuple[int, int, int, int]:
    try:
        found = entry.stat()
    except OSError:
        return 0, 0, 0, 0
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino


def parts_of(files: Sequence[File], root: str, layout: Layout) -> list[str] | None:
    """The split that each file lies in; None where they lie together.

    Raises:
      BadInput: some lie in splits, and others do not.
    """
    tops = [file.name.split("/")[0] if "/" in file.name else None for file in files]
    called = sorted({top for top in tops if top is not None})
    known = [top for top in called if top.lower() in splits.KNOWN]
    if layout == "together" or (layout == "auto" and not known):
        return None
    beside = next((file.name for file in files if "/" not in file.name), None)
    every = known == called and beside is None
    if layout == "auto" and not every:
        if len(known) < 2:
            return None  # a class of this name
        other = next((top for top in called if top not in known), beside)
        raise BadInput(
            "root",
            f"{shown(root)} has {', '.join(known)}, which are splits, and {shown(str(other))} beside",
            "move it away, or say layout=splits or layout=together",
        )
    if beside is not None:
        raise BadInput(
            "root", f"{shown(beside)} of {shown(root)} is in no split", "move it into one"
        )
    return [str(top).lower() if layout == "auto" else str(top) for top in tops]


def labels_of(
    files: Sequence[File],
    parts: Sequence[str] | None,
    root: str,
    *,
    labels: LabelsFrom,
    classes: int | None,
    kind: str = "pictures",
) -> tuple[Int32[np.ndarray, " n"], Target, list[str]]:
    """The class of each file, what it is of, and what is to be said about it.

    Args:
      files: see `found_files`.
      parts: see `parts_of`.
      root: of the files.
      labels: see `folder`.
      classes: likewise.
      kind: what they are, for messages.

    Raises:
      BadInput: their folders are no classes.
    """
    folders = [file.name.split("/")[:-1][0 if parts is None else 1 :] for file in files]
    chosen = _guessed(files, parts, folders, root) if labels == "auto" else labels
    at = {"first": 0, "last": -1}.get(chosen)
    texts = [None if at is None or not own else _text(own[at]) for own in folders]
    names, notes = sorted({text for text in texts if text}), []
    _check_apart(texts, parts, root)
    if at is not None:
        tops = sorted({file.name.split("/")[0] for file in files})
        suffixes = tuple({os.path.splitext(file.name.lower())[1] for file in files})
        _check_filled(root, [""] if parts is None else tops, {*names}, suffixes, kind)
    if labels == "auto" and len(names) == 1:
        notes.append(
            f"all {kind} of {shown(root)} that are in a folder are in {names[0]}: they are taken for "
            "unlabelled, labels=first makes a class of it"
        )
        texts, names = [None] * len(files), []
    found, target = classes_of(texts, classes=classes, names=names, name=shown(root))
    return found, target, notes


def _check_apart(texts: Sequence[str | None], parts: Sequence[str] | None, root: str) -> None:
    """Raises `BadInput` where two classes are one by a slip of a folder's name.

    Letters that look alike and spaces around a name are none; small and capital letters are where no
    split has both classes.
    """
    inside: dict[str, set[str]] = {}
    for row, text in enumerate(texts):
        if text:
            inside.setdefault(text, set()).add("" if parts is None else parts[row])
    alike: dict[str, str] = {}
    for text in sorted(inside):
        bare = unicodedata.normalize("NFC", text).strip()
        other = alike.setdefault(bare.casefold(), text)
        if other is text:
            continue
        if bare == unicodedata.normalize("NFC", other).strip() or not inside[text] & inside[other]:
            raise BadInput(
                "root",
                f"{shown(root)} has folders {other!a} and {text!a}, which would be two classes",
                "give both one name",
            )


def _guessed(
    files: Sequence[File],
    parts: Sequence[str] | None,
    folders: Sequence[Sequence[str]],
    root: str,
) -> LabelsFrom:
    """`first` or `none`; each split by itself has its pictures in classes, or all in one place."""
    depths: dict[str, set[int]] = {}
    for row, own in enumerate(folders):
        seen = depths.setdefault("" if parts is None else parts[row], set())
        seen.add(len(own))
        if len(own) > 1:
            raise BadInput(
                "labels",
                f"{shown(files[row].name)} of {shown(root)} lies in a folder within a folder",
                "say which of them is its class: labels=first, labels=last, or labels=none",
            )
        if len(seen) > 1:
            stray = next(
                files[i].name
                for i, other in enumerate(folders)
                if not other and (parts is None or parts[i] == parts[row])
            )
            raise BadInput(
                "labels",
                f"{shown(stray)} of {shown(root)} lies in no class, where others do",
                "move it, or say labels=first to leave it without a label, or labels=none for all",
            )
    return "first" if any(1 in seen for seen in depths.values()) else "none"


def _check_filled(
    root: str, within: Sequence[str], classes: set[str], suffixes: tuple[str, ...], kind: str
) -> None:
    """Raises `BadInput` where a folder of a class has no file anywhere.

    Args:
      root: of the files.
      within: the folders of it that have those of classes.
      classes: that have files.
      suffixes: of the files.
      kind: what they are, for messages.
    """
    for part in within:
        here = os.path.join(root, part)
        for name in sorted(os.listdir(here)):
            inside = os.path.join(here, name)
            if name.startswith(".") or name in _JUNK or not os.path.isdir(inside):
                continue
            if _text(name) not in classes and not any(_below(inside, suffixes)):
                raise BadInput(
                    "root",
                    f"{shown(inside)} has no {kind}, and would be a class",
                    "remove the folder, or fill it",
                )


def _text(name: str) -> str:
    """The name of a folder as text that can be written anywhere."""
    return os.fsencode(name).decode(errors="backslashreplace")
