"""Recordings as 16-bit samples: of one length, or each as long as it is."""

import dataclasses
import hashlib
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypedDict, Unpack

import numpy as np
from jaxtyping import Int32, Int64, Shaped, UInt8

from kdjax.data.arrays import from_fields
from kdjax.data.dataset import Dataset
from kdjax.data.ids import unique_ids
from kdjax.data.prepared import builder_of, check_key, declared_classes, folder_of, split_of
from kdjax.data.records import Records
from kdjax.data.sources import splits, twice
from kdjax.data.sources.folders import File, LabelsFrom, Layout, found_files, labels_of, parts_of
from kdjax.data.sources.options import local, memory, shown
from kdjax.data.sources.transcribed import TranscriptFiles, labels_by
from kdjax.data.sources.waves import (
    MOST_RATE,
    OTHERS,
    UNREAD,
    WAVES,
    Recording,
    fitted,
    is_clipped,
    read_file,
    resampled,
)
from kdjax.data.targets import Classes, Target
from kdjax.types import BadInput, under

AUDIO = "audio"
"""What a model is given."""


class SoundHow(TypedDict, total=False):
    """How recordings become samples; see `from_recordings`.

    Attributes:
      rate: samples a second that all have in the end. There is no default.
      seconds: the length of all: the middle of a longer one, and zeros behind a shorter one. None: each
        as long as it is.
      longest: in seconds, of recordings that keep their length: what is longer is refused. That of the
        longest there is by default, which other splits may exceed.
      skip_short: leave out recordings shorter than so many seconds, and say so.
    """

    rate: int
    seconds: float | None
    longest: float | None
    skip_short: float


def recordings(
    split: str,
    *,
    root: str | os.PathLike[str],
    layout: Layout = "auto",
    labels: LabelsFrom = "auto",
    classes: int | None = None,
    transcripts: TranscriptFiles | None = None,
    test_share: float = 0.0,
    **how: Unpack[SoundHow],
) -> Dataset:
    """A split of a folder of WAV, FLAC and OGG files: classes as folders, or transcripts in files.

    WAV files have 8, 16, 24 or 32 bits, or floats whose full scale is 1; what is finer than 16 bits is
    rounded. FLAC and OGG need the extra `speech`.

    Args:
      split: as TFDS writes it.
      root: the folder, as of `kdjax.data.sources.folder`.
      layout: see there.
      labels: see there.
      classes: see there.
      transcripts: where they are, in the place of classes; `labels` and `classes` are left out then.
      test_share: of the recordings, where there is no split `test`: by the hash of their samples.
      **how: see `SoundHow`; `rate` is needed.

    Raises:
      BadInput: the folder has no recordings, or one is no sound, or empty, or has several channels; or
        see `from_recordings`.
    """
    path = local(root)
    if not os.path.isdir(path):
        raise BadInput("root", f"{path} is a file", "name the folder of the recordings")
    splits.check_share(test_share)
    files = _readable(found_files(path, WAVES + OTHERS, beside=UNREAD, kind="recordings"))
    parts = parts_of(files, path, layout)
    if transcripts is None:
        found, target, notes = labels_of(
            files, parts, path, labels=labels, classes=classes, kind="recordings"
        )
    else:
        if labels not in ("auto", "none") or classes is not None:
            raise BadInput("labels, classes", "transcripts are given, too", "leave them out")
        found, target, notes = labels_by(transcripts, files, path)
    name = shown(path)
    if parts is not None and not test_share:  # no other split is read
        known = sorted({*parts})
        asked = splits.named(split, known, name=name, mend=splits.mend_of(known))
        keep = [i for i, part in enumerate(parts) if part in asked]
        notes += _elsewhere(files, keep, path, split)
        files, parts, found = [files[i] for i in keep], [parts[i] for i in keep], found[keep]
    heard = [read_file(os.path.join(path, file.name)) for file in files]
    heard = [
        one._replace(key=os.fsencode(file.name)) for one, file in zip(heard, files, strict=True)
    ]
    rows = np.arange(len(files))
    by_split: Mapping[str, np.ndarray] = {"train": rows}
    if parts is not None:
        by_split = {key: rows[[part == key for part in parts]] for key in sorted({*parts})}
    hashes = _hashes(heard)
    notes += twice.notes_of(
        by_split,
        hashes,
        found,
        target,
        shown=lambda row: shown(files[row].name),
        name=name,
        kind="recording",
    )
    return from_recordings(
        heard,
        found,
        target,
        rows=splits.chosen(split, by_split, hashes, share=test_share, name=name),
        name=f"{name} {split}",
        notes=notes,
        **how,
    )


def _readable(files: Sequence[File]) -> list[File]:
    """Those that are read; another beside one of them, as an MP3 that was converted, is left out.

    Raises:
      BadInput: there is a sound of another kind.
    """
    found = [file for file in files if not file.name.lower().endswith(UNREAD)]
    stems = {os.path.splitext(file.name)[0] for file in found}
    for file in files:
        if os.path.splitext(file.name)[0] not in stems:
            raise BadInput(
                "root",
                f"{shown(file.name)} is a sound of a kind that is not read",
                "convert it to WAV or FLAC, or remove it",
            )
    return found


def _elsewhere(files: Sequence[File], keep: Sequence[int], root: str, split: str) -> list[str]:
    """A note of files of these rows that lie in a split, too, that is not read, byte for byte."""
    inside, own, others = {*keep}, {}, {}
    for row, file in enumerate(files):
        (own if row in inside else others).setdefault(file.stamp[0], []).append(file.name)

    def digests(by_size: Mapping[int, list[str]]) -> dict[bytes, str]:
        names = [name for size in {*own} & {*others} for name in by_size[size]]
        return {_content(os.path.join(root, name)): name for name in sorted(names, reverse=True)}

    here, there = digests(own), digests(others)
    both = sorted((name, there[key]) for key, name in here.items() if key in there)
    if not both:
        return []
    count = "1 recording is" if len(both) == 1 else f"{len(both)} recordings are"
    return [
        f"{count} in {split} and in another split of {shown(root)}, such as {shown(both[0][0])}, which "
        f"is {shown(both[0][1])}; what is measured on them is too good: remove one of each"
    ]


def _content(path: str) -> bytes:
    """The hash of a file; of one that cannot be read that of its name."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError:
        return os.fsencode(path)


def tfds_sound(
    split: str,
    *,
    set: str,
    audio: str = "audio",
    label: str = "label",
    recorded_at: int | None = None,
    data_dir: str | None = None,
    **how: Unpack[SoundHow],
) -> Dataset:
    """A split of recordings that `tfds build` has prepared, such as `spoken_digit:1.0.10`.

    Args:
      split: as TFDS writes it; examples come in its order.
      set: see `kdjax.data.prepared`.
      audio: the feature of the samples: integers [n] of 16 bits.
      label: the feature of the labels, a ClassLabel.
      recorded_at: samples a second of the set; what its metadata say by default.
      data_dir: the directory that holds `SET/VERSION/dataset_info.json`.
      **how: see `SoundHow`; `rate` is needed.

    Raises:
      BadInput: nothing is prepared there, or it is damaged, or a feature is no such; or see
        `from_recordings`.
    """
    prepared = Prepared.of(set, audio, label, recorded_at=recorded_at, data_dir=data_dir)
    split_of(prepared.builder, split, name=set)
    heard, found, _ = prepared.read(split)
    return from_recordings(
        heard,
        found,
        prepared.target,
        rows=np.arange(len(heard)),
        name=f"{set} {split}",
        notes=(),
        **how,
    )


class Prepared(NamedTuple):
    """Recordings that `tfds build` has prepared.

    Attributes:
      name: of the set.
      builder: of it.
      audio: the feature of the samples.
      label: that of the labels.
      target: what these are of.
      rate: samples a second.
    """

    name: str
    builder: Any
    audio: str
    label: str
    target: Classes
    rate: int

    @classmethod
    def of(
        cls, name: str, audio: str, label: str, *, recorded_at: int | None, data_dir: str | None
    ) -> "Prepared":
        """See `tfds_sound`."""
        with under("", {"data.name": "set"}):
            folder = folder_of(name, data_dir)
        builder = builder_of(folder)
        features = builder.info.features
        for field, key in (("audio", audio), ("label", label)):
            check_key(features, key, name, field=field)
        shape, dtype = features[audio].shape, features[audio].np_dtype
        if len(shape) != 1 or not np.issubdtype(dtype, np.integer):
            raise BadInput(
                "audio",
                f"{audio!r} of {name} is no sound: it is not integers [samples]",
                "name another",
            )
        classes = declared_classes(features, label, name, field="label")  # or it is no label
        target = Classes(classes, tuple(features[label].names or ()))
        rate = recorded_at or _rate_of(builder.info, features[audio], name)
        return cls(name, builder, audio, label, target, rate)

    def read(
        self, split: str, *, more: Sequence[str] = ()
    ) -> tuple[list[Recording], Int32[np.ndarray, " n"], list[Mapping[str, Any]]]:
        """The recordings of a split in its order, their labels, and what else is asked for of them.

        Raises:
          BadInput: one is not of 16 bits.
        """
        keys = [self.audio, self.label, *more]
        records = Records(self.builder, split, name=f"{self.name} {split}", keys=keys)
        read, heard = records.read(range(len(records))), []
        for row, record in enumerate(read):
            samples = np.asarray(record[self.audio])
            if samples.size and not (samples.min() >= -(2**15) and samples.max() < 2**15):
                raise records.fault(row, "its samples are not of 16 bits")
            where = f"{records.name}, {records.where(row)}"
            heard.append(Recording(records.key(row), samples.astype(np.int16), self.rate, where))
        labels = np.asarray([record[self.label] for record in read], np.int32)
        return heard, labels, [{key: record[key] for key in more} for record in read]


def _rate_of(info: Any, feature: Any, name: str) -> int:
    """Samples a second, as the set says."""
    metadata = info.metadata or {}
    said = metadata.get("sample_rate") or getattr(feature, "sample_rate", None)
    if not said:
        raise BadInput("recorded_at", f"{name} does not say its rate", "say it: samples a second")
    return int(said)


def from_recordings(
    heard: Sequence[Recording],
    labels: Shaped[np.ndarray, "n ..."],
    target: Target,
    *,
    rows: Int64[np.ndarray, " _"],
    name: str,
    notes: Sequence[str] = (),
    rate: int | None = None,
    seconds: float | None = None,
    longest: float | None = None,
    skip_short: float = 0.0,
) -> Dataset:
    """Samples of recordings, int16: `audio` [samples]; ragged, with `audio_length`, where none is cut.

    What was recorded at another rate is resampled by `scipy.signal.resample_poly`, whose filter is a
    Kaiser window of beta 5, and rounded. An id is the hash of a recording's name and samples.

    Args:
      heard: all of them.
      labels: one each.
      target: what they are of.
      rows: those that are taken, in this order.
      name: for messages and the report.
      notes: what is to be said of them.
      rate: see `SoundHow`.
      seconds: likewise.
      longest: likewise.
      skip_short: likewise.

    Raises:
      BadInput: a recording is empty or too long, or all of them are larger than half of the memory.
    """
    if isinstance(rate, bool) or not isinstance(rate, int) or not 1 <= rate <= MOST_RATE:
        raise BadInput("rate", f"{rate!r}", f"give samples a second, 1 to {MOST_RATE}")
    for field, value in (("seconds", seconds), ("longest", longest)):
        if value is not None and not 0 < value * rate < 2**31:
            raise BadInput(field, f"{value!r}", "give seconds, above zero")
    if seconds is not None and longest is not None:
        raise BadInput("longest, seconds", "all have one length", "give one of the two")
    taken, said = _long_enough(heard, rows, skip_short, name)
    length = None if seconds is None else max(1, round(seconds * rate))
    _check_memory([heard[i] for i in taken], rate, length, name)
    chosen = [heard[i] for i in taken]
    clipped = [one.where for one in chosen if is_clipped(one.samples)]
    other = [f"{one.where} ({one.rate} Hz)" for one in chosen if one.rate != rate]
    for found, what in ((clipped, "clipped"), (other, f"resampled to {rate} Hz")):
        if found:
            about = f"{len(found)} of {len(taken)} recordings of {name}"
            said.append(f"{about} are {what}, such as {found[0]}")
    arrays = [resampled(heard[i].samples, heard[i].rate, rate) for i in taken]
    ids = unique_ids([_digest(heard[i]) for i in taken])
    common: dict[str, Any] = {"target": target, "ids": ids, "rates": {AUDIO: rate}, "name": name}
    if length is not None:
        inputs: Any = np.stack([fitted(samples, length) for samples in arrays])
        made = from_fields({AUDIO: inputs}, labels[taken], **common)
    else:
        most = max(map(len, arrays)) if longest is None else max(1, round(longest * rate))
        if long := [i for i, own in enumerate(arrays) if len(own) > most]:
            raise BadInput(
                "longest",
                f"{longest:g} s, and {heard[taken[long[0]]].where} has {len(arrays[long[0]]) / rate:.4g}",
                "give more, cut it, or leave it out",
            )
        made = from_fields({AUDIO: arrays}, labels[taken], ragged={AUDIO: most}, **common)
    return dataclasses.replace(made, notes=(*notes, *said))


def _long_enough(
    heard: Sequence[Recording], rows: Int64[np.ndarray, " _"], least: float, name: str
) -> tuple[list[int], list[str]]:
    """The rows of recordings of so many seconds, and what is to be said of the others."""
    empty = next((heard[int(row)] for row in rows if not len(heard[int(row)].samples)), None)
    if empty is not None:
        raise BadInput("data", f"{empty.where} is empty", "leave it out")
    taken = [int(row) for row in rows if len(heard[row].samples) >= least * heard[row].rate]
    short = f"{name} are shorter than {least:g} s"
    if not taken:
        raise BadInput("skip_short", f"all of {short}", "give less")
    if len(taken) == len(rows):
        return taken, []
    return taken, [f"{len(rows) - len(taken)} of {len(rows)} recordings of {short} and left out"]


def _check_memory(heard: Sequence[Recording], rate: int, length: int | None, name: str) -> None:
    """Raises `BadInput` where all samples are more than half of what there is."""
    size = sum(2 * (length or math.ceil(len(one.samples) * rate / one.rate)) for one in heard)
    if size > memory() // 2:
        raise BadInput(
            "data",
            f"{name} is {size / 2**30:.1f} GiB of samples, more than half of the memory",
            "give a lower rate or fewer seconds",
        )


def _digest(one: Recording) -> bytes:
    return hashlib.sha256(one.key + b"\0" + one.samples.tobytes()).digest()


def _hashes(heard: Sequence[Recording]) -> UInt8[np.ndarray, "n 32"]:
    """Of the samples alone: two of the same sound are on one side of a rule."""
    found = [hashlib.sha256(one.samples.tobytes()).digest() for one in heard]
    return np.frombuffer(b"".join(found), np.uint8).reshape(-1, 32)
