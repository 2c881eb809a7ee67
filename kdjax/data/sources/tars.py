"""Tars of pictures beside their labels, as WebDataset writes them: `0001.jpg`, `0001.cls`.

Nothing is unpacked. Where each member lies is found once, from the headers alone, and its bytes are
read there. So a tar must not be compressed; pictures are by themselves.

A name in a tar is only a name here: no file is written. All the same, what has no business among
pictures is refused and not passed over: names that climb out (`../`, `/`), links, devices and sparse
files. Folders and hidden files are passed over.
"""

import os
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Unpack

import numpy as np

from kdjax.data.dataset import Dataset
from kdjax.data.seen import Kept, stat
from kdjax.data.sources import splits
from kdjax.data.sources.encoded import Encoded
from kdjax.data.sources.folders import SUFFIXES
from kdjax.data.sources.options import (
    How,
    classes_of,
    dataset_of,
    files_below,
    integer,
    local,
    shown,
)
from kdjax.files import from_json
from kdjax.spelling import suggestion
from kdjax.types import BadInput

_BLOCK = 512
_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZ": "bzip2", b"\xfd7": "xz", b"\x28\xb5": "zstd"}
_AUTO = ("cls", "json.label", "json.cls")


def tar(
    split: str,
    *,
    root: str | os.PathLike[str],
    image: str | None = None,
    label: str | None = "auto",
    names: Sequence[str] | None = None,
    classes: int | None = None,
    **how: Unpack[How],
) -> Dataset:
    """A split of tars of pictures, each example of which is the members of one name.

    A split is what `train`, `test` or the like in the tar's path names: `imagenet-train-0001.tar`.

    Args:
      split: as TFDS writes it.
      root: the directory of the tars, or one of them.
      image: the ending of the pictures, `jpg`, where an example has several; the only one by default.
      label: the ending of what has the class (an integer, or its name), such as `cls`; of JSON with the
        field, `json.label`. `auto` is whichever there is of cls, json.label and json.cls; None is none.
      names: of the classes in their order, where labels are integers.
      classes: how many there are; one more than the largest label by default.
      **how: see `How`; `size` is needed.

    Raises:
      BadInput: a tar is compressed, cut short or has what it should not have, or see `from_encoded`.
    """
    path = local(root)
    files = files_below(path, (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz"), kind="tars")
    tars = {name: _Tar(file) for name, file in files.items()}
    samples: list[_Sample] = []
    for name, one in tars.items():
        samples += _samples(name, one.members(how.get("kept")), image=image)
    if not samples:
        raise BadInput("root", f"{shown(path)} has no pictures in its tars")
    labels, target = classes_of(
        _values(samples, tars, label), classes=classes, names=names, name=shown(path)
    )
    by_split = splits.of_paths(files, what=shown(path))
    stamps = {name: stat(file) for name, file in files.items()}

    def content(row: int) -> bytes:
        own = samples[row]
        return tars[own.tar].read(own.picture)

    encoded = Encoded(
        name=shown(path),
        keys=[os.fsencode(f"{s.tar}#{s.picture.name}") for s in samples],
        shown=lambda row: f"{shown(samples[row].picture.name)} of {shown(samples[row].tar)}",
        content=content,
        labels=labels,
        target=target,
        stamps=np.asarray(
            [(*stamps[s.tar], s.picture.start, s.picture.size) for s in samples], np.int64
        ),
        splits=None
        if by_split is None
        else {
            part: np.flatnonzero([s.tar in inside for s in samples])
            for part, inside in by_split.items()
        },
    )
    return dataset_of(encoded, split, what={"tar": path, "image": image}, **how)


class _Member(NamedTuple):
    """A file in a tar: its name, and where its bytes are."""

    name: str
    start: int
    size: int


class _Sample(NamedTuple):
    """An example.

    Attributes:
      tar: the name of its tar.
      picture: its picture.
      others: what else there is, by ending.
    """

    tar: str
    picture: _Member
    others: Mapping[str, _Member]


class _Tar:
    """Random access to the files in a tar; threads may share one."""

    def __init__(self, path: str):
        self._path = path

    def read(self, member: _Member) -> bytes:
        """The bytes of one."""
        with open(self._path, "rb", buffering=0) as file:
            return os.pread(file.fileno(), member.size, member.start)

    def members(self, kept: Kept | None) -> list[_Member]:
        """All that are files, in their order."""
        what = ["members", os.path.abspath(self._path), [*stat(self._path)]]
        table = None if kept is None else kept.table(what)
        if table is not None:
            names = table["names"].tobytes().split(b"\0") if len(table["places"]) else []
            places = table["places"].tolist()
            return [
                _Member(os.fsdecode(name), *place)
                for name, place in zip(names, places, strict=True)
            ]
        found = list(self._scanned())
        if kept is not None:
            joined = b"\0".join(os.fsencode(member.name) for member in found)
            places = np.asarray([member[1:] for member in found], np.int64).reshape(-1, 2)
            kept.keep(what, {"names": np.frombuffer(joined, np.uint8), "places": places})
        return found

    def _scanned(self) -> Iterator[_Member]:
        try:
            size = os.path.getsize(self._path)
            begin = self.read(_Member("", 0, 2))
            if begin in _COMPRESSED:
                raise self._fault(
                    f"is compressed by {_COMPRESSED[begin]}, which has no random access",
                    "unpack it once",
                )
            with tarfile.open(self._path, "r:") as opened:
                for member in opened:
                    if member.isdir() or os.path.basename(member.name).startswith("."):
                        continue
                    self._check(member, size)
                    yield _Member(member.name, member.offset_data, member.size)
                end = opened.offset
            after = self.read(_Member("", end, _BLOCK))
        except (tarfile.TarError, OSError, EOFError, OverflowError) as error:
            said = " ".join(str(error).split())
            raise self._fault(f"is no whole tar ({said})", "copy it again") from None
        # `tarfile` takes a damaged header for the end, where there are zeros.
        if end > size or any(after) or 0 < len(after) < _BLOCK:
            raise self._fault(f"is damaged or cut short at byte {end}", "copy it again")

    def _check(self, member: tarfile.TarInfo, size: int) -> None:
        """Refuses what has no business among pictures."""
        name = shown(member.name)
        if member.name.startswith(("/", "\\")) or ".." in member.name.replace("\\", "/").split("/"):
            raise self._fault(f"has {name}, which climbs out of it", "pack it again without that")
        if member.issym() or member.islnk():
            raise self._fault(
                f"has {name}, a link to {shown(member.linkname)}", "pack the file itself"
            )
        if not member.isreg() or member.issparse():
            raise self._fault(f"has {name}, which is no plain file", "pack it again without that")
        if "\0" in member.name:
            raise self._fault(f"has {name}, a name with a NUL", "pack it again without that")
        if member.offset_data + member.size > size:
            raise self._fault(f"is cut short within {name}", "copy it again")

    def _fault(self, what: str, mend: str) -> BadInput:
        return BadInput("root", f"{shown(self._path)} {what}", mend)


def _samples(tar: str, members: Sequence[_Member], *, image: str | None) -> list[_Sample]:
    """The examples of one tar, in their order."""
    together: dict[str, dict[str, _Member]] = {}
    for member in members:
        folder, base = os.path.split(member.name)
        stem, _, ending = base.partition(".")
        own = together.setdefault(os.path.join(folder, stem), {})
        if own.setdefault(ending.lower(), member) is not member:
            raise BadInput("root", f"{shown(tar)} has {shown(member.name)} twice", "pack it again")
    found = []
    for key, own in together.items():
        pictures = [e for e in own if f".{e.rpartition('.')[2]}" in SUFFIXES]
        if image is not None:
            pictures = [ending for ending in pictures if ending == image.lower()]
        if len(pictures) > 1:
            raise BadInput(
                "image",
                f"{shown(key)} of {shown(tar)} has {', '.join(pictures)}",
                f"say which is the picture: image={pictures[0]}",
            )
        if pictures:
            others = {ending: member for ending, member in own.items() if ending != pictures[0]}
            found.append(_Sample(tar, own[pictures[0]], others))
    return found


def _values(samples: Sequence[_Sample], tars: Mapping[str, _Tar], label: str | None) -> list[Any]:
    """The label of each example as it is written, None where there is none.

    Raises:
      BadInput: no example has such a label.
    """
    if label is None:
        return [None] * len(samples)
    for asked in _AUTO if label == "auto" else (label,):
        found = [_value(sample, tars, asked) for sample in samples]
        if any(value is not None for value in found):
            return found
    if label == "auto":
        return [None] * len(samples)
    endings = sorted({ending for sample in samples for ending in sample.others})
    raise BadInput(
        "label",
        f"no example has {label!r}: beside pictures there is {', '.join(endings) or 'nothing'}",
        suggestion(label, endings) if endings else "give label=None",
    )


def _value(sample: _Sample, tars: Mapping[str, _Tar], label: str) -> Any:
    ending, _, field = label.partition("json.")
    member = sample.others.get("json" if field else ending)
    if member is None:
        return None
    where = f"{shown(member.name)} of {shown(sample.tar)}"
    try:
        text = tars[sample.tar].read(member).decode("utf-8").strip()
        if not field:
            return text if (number := integer(text)) is None else number
        said = from_json(text)
    except (UnicodeDecodeError, ValueError) as error:
        raise BadInput("label", f"{where} cannot be read ({error})", "pack it again") from None
    value = said.get(field) if isinstance(said, dict) else None
    if value is not None and not isinstance(value, int | str):
        raise BadInput("label", f"{field} of {where} is {value!r}", "give a class")
    return value
