"""NumPy's own files: arrays of pictures or of anything else, beside their labels."""

import hashlib
import io
import os
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from kdjax.data.arrays import from_arrays, from_fields
from kdjax.data.dataset import Dataset
from kdjax.data.ids import unique_ids
from kdjax.data.sources import splits
from kdjax.data.sources.options import classes_of, files_below, local, memory, shown
from kdjax.data.targets import Target, Values
from kdjax.spelling import suggestion
from kdjax.types import BadInput

IMAGES = ("image", "images", "x", "data", "pixels")
LABELS = ("label", "labels", "y", "target", "targets")
IDS = ("id", "ids")
"""What arrays are called, in small letters, besides the split."""

_SUFFIXES = (".npz", ".npy")


def npz(
    split: str,
    *,
    root: str | os.PathLike[str],
    image: str | None = None,
    label: str | None = "auto",
    target: str = "classes",
    classes: int | None = None,
    test_share: float = 0.0,
) -> Dataset:
    """A split of the arrays in `.npz` and `.npy` files.

    The split of an array is what `train`, `test` or the like in its name, or in that of its file, names:
    `x_train`, `train_images.npy`, `test.npz`. The rest of its name says what it is: see `IMAGES`,
    `LABELS`, `IDS`. Files are never unpickled, and what they declare is held against the memory before
    anything is unpacked. A `.npy` of pictures stays on the disk.

    Args:
      split: as TFDS writes it.
      root: a directory of files, or one file.
      image: what the arrays of inputs are called besides the split, where it is none of `IMAGES`. What is
        uint8, [n, height, width] or [n, height, width, channel], are pictures.
      label: likewise of the labels; `auto` is one of `LABELS`, or none if there is none, and so is None.
      target: `classes`, labels are integers, -1 for none, or names; `values`, they are numbers [n] or
        [n, dim] to be predicted.
      classes: how many there are; one more than the largest label by default.
      test_share: where no array is of a split: the share of the examples whose content hashes below it
        is `test`, and the others are `train`.

    Raises:
      BadInput: there are no such arrays, they hold pickles, or are larger than memory, or damaged.
    """
    path = local(root)
    if target not in ("classes", "values"):
        raise BadInput("target", f"{target!r} is not one of classes, values")
    splits.check_share(test_share)
    every = [
        entry
        for name, file in files_below(path, _SUFFIXES, kind="NumPy files").items()
        for entry in _entries(name, file)
    ]
    parts = splits.of_paths([entry.name for entry in every], what=shown(path))
    inside = parts if parts is not None else {"train": [entry.name for entry in every]}
    by_rule = test_share > 0
    if by_rule:
        splits.to_cut(inside, name=str(path))
    known = [*inside, *(["test"] if by_rule else [])]
    mend = "" if "test" in known else "give test_share=0.1 to have a tenth for the test"
    asked = splits.named(split, known, name=shown(path), mend=mend)
    lying = [*dict.fromkeys("train" if by_rule and one == "test" else one for one in asked)]
    byname = {entry.name: entry for entry in every}
    found = {
        key: _arrays([byname[name] for name in names], f"{shown(path)} {key}", image, label)
        for key, names in inside.items()
    }
    wanted = [found[key].inputs for key in lying]
    wanted += [one.labels for one in found.values() if one.labels is not None]
    size = sum(entry.size for entry in wanted if not entry.on_disk or len(lying) > 1)
    if size > memory() // 2:
        raise BadInput(
            "root",
            f"{shown(path)} declares {size / 2**30:.1f} GiB, more than half of the memory",
            "save the inputs as .npy, which is read where it lies",
        )
    labels, asks = _labels(found, target, classes=classes, name=shown(path))
    own = _joined([found[key] for key in lying])
    whole = _dataset(own, labels, asks, lying, name=f"{shown(path)} {split}")
    hashes = _hashes(whole)
    begin = np.cumsum([0, *(len(labels[key]) for key in lying)])
    rows = {key: np.arange(begin[i], begin[i + 1]) for i, key in enumerate(lying)}
    if by_rule:
        rows |= splits.parted(rows["train"], hashes, test_share, name=shown(path))
    return whole.select(splits.cut(split, rows, hashes, name=shown(path)))


class _Entry(NamedTuple):
    """An array that a file declares.

    Attributes:
      name: of the array, its file's in front: `train.npz/images`, `x_train.npy`.
      shape: that it declares.
      dtype: likewise.
      on_disk: it is not read into memory.
      load: reads it.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    on_disk: bool
    load: Callable[[], np.ndarray]

    @property
    def size(self) -> int:
        """Bytes that it declares."""
        return int(np.prod(self.shape, dtype=object)) * self.dtype.itemsize

    @property
    def words(self) -> list[str]:
        """Of its name, in small letters, but for those of a split; the array's own before the file's."""
        *folders, last = self.name.removesuffix(".npy").split("/")
        return [
            word
            for part in (last, *folders[::-1])
            for word in re.split(r"[^a-z]+", part.lower().removesuffix(".npz"))
            if word and word not in splits.KNOWN
        ]


def _entries(name: str, path: str) -> Iterator[_Entry]:
    """The arrays of a file; nothing but their headers is read.

    Raises:
      BadInput: it is damaged, or holds what is no array of numbers.
    """
    try:
        if not path.lower().endswith(".npz"):
            with open(path, "rb") as file:
                shape, dtype, _ = _header(file, path)
            stays = dtype == np.uint8 and len(shape) in (3, 4)
            yield _Entry(name, shape, dtype, stays, lambda: _mapped(path))
            return
        with zipfile.ZipFile(path) as packed:
            for info in packed.infolist():
                at = f"{path}: {info.filename}"
                with packed.open(info) as file:
                    shape, dtype, length = _header(file, at)
                declared = int(np.prod(shape, dtype=object)) * dtype.itemsize + length
                if declared != info.file_size:
                    raise BadInput(
                        "root",
                        f"{shown(at)} declares {declared} bytes, and its file is of {info.file_size}",
                        "save it again",
                    )
                inner = info.filename.removesuffix(".npy")
                yield _Entry(
                    f"{name}/{inner}", shape, dtype, False, _unpacking(path, info.filename)
                )
    except (OSError, zipfile.BadZipFile, RuntimeError) as error:
        said = " ".join(str(error).split())
        raise BadInput("root", f"{shown(path)} cannot be read ({said})", "copy it again") from None


def _header(file: Any, where: str) -> tuple[tuple[int, ...], np.dtype, int]:
    """Shape, dtype and length of the header of an array, of which nothing else is read."""
    begin = file.read(8)
    if begin[:6] != b"\x93NUMPY":
        pickled = begin[:1] == b"\x80"
        raise BadInput(
            "root",
            f"{shown(where)} is {'a pickle, which is never loaded' if pickled else 'no array'}",
            "save the arrays by numpy.save or numpy.savez",
        )
    length_bytes = 2 if begin[6] == 1 else 4
    length = int.from_bytes(file.read(length_bytes), "little")
    if length > 2**16:
        raise BadInput("root", f"{shown(where)} has a header of {length} bytes", "save it again")
    head = file.read(length)
    joined = io.BytesIO(begin + length.to_bytes(length_bytes, "little") + head)
    try:
        version = np.lib.format.read_magic(joined)
        read = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[(min(version[0], 2), version[1])]
        shape, _, dtype = read(joined)
    except (ValueError, KeyError) as error:
        said = " ".join(str(error).split())
        raise BadInput("root", f"{shown(where)} is damaged ({said})", "save it again") from None
    if dtype.hasobject:
        raise BadInput(
            "root",
            f"{shown(where)} has Python objects, a pickle, which is never loaded",
            "save it as numbers",
        )
    return shape, dtype, 8 + length_bytes + length


def _mapped(path: str) -> np.ndarray:
    return np.load(path, mmap_mode="r", allow_pickle=False)


def _unpacking(path: str, member: str) -> Callable[[], np.ndarray]:
    def load() -> np.ndarray:
        with zipfile.ZipFile(path) as packed, packed.open(member) as file:
            return np.lib.format.read_array(file, allow_pickle=False)

    return load


class _Arrays(NamedTuple):
    """The arrays of a split.

    Attributes:
      called: what its inputs are called.
      inputs: of all examples.
      labels: of them, None where there are none.
      ids: likewise.
    """

    called: str
    inputs: _Entry
    labels: _Entry | None
    ids: _Entry | None


def _arrays(entries: Sequence[_Entry], name: str, image: str | None, label: str | None) -> _Arrays:
    """Which array of a split is what.

    Raises:
      BadInput: there is none of inputs, or several could be meant, or they are not of one length.
    """
    inputs = _one(entries, IMAGES if image is None else (image.lower(),), "image", name)
    if inputs is None:
        known = ", ".join(shown(entry.name) for entry in entries)
        raise BadInput("image", f"{name} has no inputs: it has {known}", "say what they are called")
    labels = None
    if label is not None:
        labels = _one(entries, LABELS if label == "auto" else (label.lower(),), "label", name)
        if labels is None and label != "auto":
            words = sorted({word for entry in entries for word in entry.words})
            raise BadInput("label", f"{name} has no array {label!r}", suggestion(label, words))
    ids = _one(entries, IDS, "id", name)
    if not inputs.shape or any(
        other is not None and other.shape[:1] != inputs.shape[:1] for other in (labels, ids)
    ):
        raise BadInput("root", f"the arrays of {name} are not of one length", "save one each")
    return _Arrays(next(word for word in inputs.words), inputs, labels, ids)


def _one(entries: Sequence[_Entry], words: Sequence[str], field: str, name: str) -> _Entry | None:
    """The array that is called so, None where none is."""
    found = [entry for entry in entries if entry.words and entry.words[0] in words]
    if not found:
        found = [entry for entry in entries if {*words} & {*entry.words}]
    if len(found) > 1:
        both = " and ".join(shown(entry.name) for entry in found[:2])
        raise BadInput(field, f"{name} has {both}", "say what the one that is meant is called")
    return found[0] if found else None


def _labels(
    found: Mapping[str, _Arrays], target: str, *, classes: int | None, name: str
) -> tuple[dict[str, np.ndarray], Target]:
    """The labels of each split, and what those of all of them are of."""
    given, counts = [], {key: one.inputs.shape[0] for key, one in found.items()}
    for key, one in found.items():
        array = None if one.labels is None else _read(one.labels)
        if array is not None and target == "classes":
            array = array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array
            if array.ndim != 1:
                raise BadInput(
                    "label", f"those of {name} {key} are {list(array.shape)}", "give one an example"
                )
        given.append([None] * counts[key] if array is None else array)
    ends = np.cumsum([0, *counts.values()])
    if target == "values":
        dims = {array.shape[1:] for array in given if isinstance(array, np.ndarray)}
        if len(dims) != 1 or len(shape := dims.pop()) > 1:
            raise BadInput("label", f"those of {name} are not numbers [n, dim] of one dim")
        asks: Target = Values(shape[0] if shape else 1)
        together = np.concatenate(
            [
                np.full((len(one), *asks.shape), np.nan)
                if isinstance(one, list)
                else np.asarray(one).reshape(len(one), *asks.shape)
                for one in given
            ]
        )
        labels = asks.read(together, n=len(together), name=name)
    else:
        values = [
            one for array in given for one in (array if isinstance(array, list) else array.tolist())
        ]
        labels, asks = classes_of(values, classes=classes, names=None, name=name)
    return {key: labels[ends[i] : ends[i + 1]] for i, key in enumerate(found)}, asks


def _read(entry: _Entry) -> np.ndarray:
    try:
        return entry.load()
    except (OSError, ValueError, zipfile.BadZipFile, zlib.error, EOFError) as error:
        said = " ".join(str(error).split())
        raise BadInput(
            "root", f"{shown(entry.name)} cannot be read ({said})", "copy it again"
        ) from None


def _joined(found: Sequence[_Arrays]) -> tuple[str, np.ndarray, np.ndarray | None]:
    """What inputs are called, these of some splits, and their ids where they have some."""
    inputs = [_read(one.inputs) for one in found]
    ids = [one.ids and _read(one.ids) for one in found]
    if len({array.shape[1:] for array in inputs}) > 1:
        raise BadInput("data", f"splits are of {', '.join(str(a.shape[1:]) for a in inputs)}")
    array = inputs[0] if len(inputs) == 1 else np.concatenate(inputs)
    own = None if any(one is None for one in ids) else np.concatenate([np.asarray(i) for i in ids])
    return found[0].called, array, own


def _dataset(
    own: tuple[str, np.ndarray, np.ndarray | None],
    labels: Mapping[str, np.ndarray],
    target: Target,
    lying: Sequence[str],
    *,
    name: str,
) -> Dataset:
    """All examples of some splits."""
    called, inputs, ids = own
    given = np.concatenate([labels[key] for key in lying])
    if ids is not None:
        numbers = unique_ids(ids.tolist())
    elif len(lying) == 1:
        numbers = np.arange(len(inputs), dtype=np.uint32)
    else:
        numbers = unique_ids([f"{key} {i}" for key in lying for i in range(len(labels[key]))])
    if inputs.dtype == np.uint8 and inputs.ndim in (3, 4):
        pictures = inputs if inputs.ndim == 4 else inputs[..., None]
        return from_arrays(pictures, given, target=target, ids=numbers, name=name)
    return from_fields({called: inputs}, given, target=target, ids=numbers, name=name)


def _hashes(dataset: Dataset) -> np.ndarray:
    """SHA-256 of the inputs of each example."""
    found = np.empty((len(dataset), 32), np.uint8)
    for row in range(len(dataset)):
        (array,) = dataset.read(np.array([row])).values()
        digest = hashlib.sha256(np.ascontiguousarray(array).tobytes()).digest()
        found[row] = np.frombuffer(digest, np.uint8)
    return found
