"""Datasets of arrays in memory."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int, Int32, Shaped, UInt8, UInt32

from kdjax import fingerprint
from kdjax.data.dataset import Dataset, Read
from kdjax.data.ragged import Ragged, check_ragged, with_lengths
from kdjax.data.targets import Target, target_of
from kdjax.types import BadInput, Field, Fields


def from_fields(
    inputs: Mapping[str, Any],
    labels: Any,
    *,
    classes: Any = None,
    target: Target | None = None,
    ids: Any = None,
    below: Mapping[str, int] | None = None,
    ragged: Mapping[str, Any] | None = None,
    rates: Mapping[str, int] | None = None,
    name: str = "arrays",
) -> Dataset:
    """A dataset of arrays in memory of any kind: images, tokens, measurements, several of them.

    All are copied. Integers of 64 bits become int32, where they fit, and floats of 64 bits float32:
    that is what runs on a device.

    Args:
      inputs: arrays [n, ...] by name, in the order in which a file of the model takes them. What is uint8
        with height, width and channels is seen as an image, see `kdjax.inputs`.
      labels: as of `from_arrays`, and so are `classes`, `target` and `ids`.
      classes: see there.
      target: see there.
      ids: see there.
      below: of integers, by name: how many values there may be, such as the size of a vocabulary; one
        more than the largest by default.
      ragged: inputs whose examples differ in length, such as sentences: a list of arrays [length, ...]
        each. The number is the length of the longest that there may be, of any split. A model is
        given them padded with zeros, and their lengths, [n], as an input `NAME_length` of its own.
      rates: positions a second, of inputs whose positions are moments of time, such as samples of sound.
      name: for messages and the report.

    Raises:
      BadInput: there is no array, or they are not of one length, or not of numbers, or see `from_arrays`.
    """
    if not inputs:
        raise BadInput("data", f"{name} has no inputs", "give one array at least, by name")
    check_ragged(ragged or {}, list(inputs), name=name)
    _check_rates(rates or {}, list(inputs), name=name)
    together = {
        field: Ragged.of(given, most=(ragged or {})[field], what=f"{field} of {name}")
        for field, given in inputs.items()
        if field in (ragged or {})
    }
    arrays = {
        field: numbers(together[field].values if field in together else given, f"{field} of {name}")
        for field, given in inputs.items()
    }
    together = {field: own._replace(values=arrays[field]) for field, own in together.items()}
    lengths = {field: own.lengths for field, own in together.items()}
    counts = {field: len(lengths.get(field, array)) for field, array in arrays.items()}
    if len(set(counts.values())) > 1:
        raise BadInput(
            "data", f"{name} has {counts} examples", "give one of each for every example"
        )
    fields = {
        field: _field(field, array, together.get(field), below or {}, rates or {}, name)
        for field, array in arrays.items()
    }
    every, beside = with_lengths(fields, lengths, name=name)
    content = {**arrays, **beside}

    def read(rows: Int[np.ndarray, " b"]) -> dict[str, np.ndarray]:
        return {
            field: together[field].read(rows) if field in together else content[field][rows]
            for field in every
        }

    return labelled(
        every,
        read,
        content,
        labels,
        n=next(iter(counts.values())),
        target=target_of(classes, target, name=name),
        ids=ids,
        name=name,
        lengths=lengths,
    )


def _field(
    field: str,
    array: np.ndarray,
    together: Ragged | None,
    below: Mapping[str, int],
    rates: Mapping[str, int],
    name: str,
) -> Field:
    """What each example has of an input, whose arrays may be end to end."""
    shape = array.shape[1:] if together is None else (together.most, *array.shape[1:])
    if (rate := rates.get(field)) is not None and not shape:
        raise BadInput("data", f"{field} of {name} has a rate, and no positions")
    own = field_of(array, shape, below.get(field), f"{field} of {name}")
    if rate is not None and own.dtype == "int16" and field not in below:
        own = dataclasses.replace(own, below=None)  # sound may be negative, though this is silence
    return dataclasses.replace(own, ragged=together is not None, rate=rate)


def _check_rates(rates: Mapping[str, Any], inputs: Sequence[str], *, name: str) -> None:
    for field, rate in rates.items():
        if field not in inputs:
            known = ", ".join(inputs)
            raise BadInput("data", f"{field} of {name} has a rate, and the inputs are {known}")
        if isinstance(rate, bool) or not isinstance(rate, int) or rate < 1:
            raise BadInput(
                "data", f"the rate of {field} of {name} is {rate!r}", "give positions a second"
            )


def numbers(given: Any, what: str) -> np.ndarray:
    """A copy that nobody can write to, in a dtype of devices.

    Raises:
      BadInput: they are no numbers, not finite, or do not fit into 32 bits.
    """
    array = _array(given, what)
    if array.dtype.kind not in "biuf" or not array.ndim:
        raise BadInput(
            "data", f"{what} are {array.dtype}{list(array.shape)}", "give numbers, [n, ...]"
        )
    if not len(array):
        raise BadInput("data", f"{what}: there are no examples", "name another split")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise BadInput("data", f"{what} are not all finite", "look at where they are from")
    if array.dtype.itemsize == 8 or array.dtype == np.uint32:
        narrow = np.float32 if array.dtype.kind == "f" else np.int32
        if array.dtype.kind in "iu" and (array.min() < -(2**31) or array.max() >= 2**31):
            raise BadInput(
                "data", f"{what} go from {array.min()} to {array.max()}", "int32 is the most"
            )
        array = array.astype(narrow)
    array = np.array(array, order="C", subok=False)
    array.setflags(write=False)
    return array


def field_of(values: np.ndarray, shape: tuple[int, ...], below: int | None, what: str) -> Field:
    """The field of examples of this shape, which has these values, or these at its ends.

    Raises:
      BadInput: integers are not in [0, below).
    """
    dtype = values.dtype
    if dtype.kind not in "iu" or (dtype == np.uint8 and len(shape) == 3):
        return Field(shape, dtype.name)
    low, high = int(values.min()), int(values.max())
    if below is None:
        return Field(shape, dtype.name, None if low < 0 else high + 1)
    if low < 0 or high >= below:
        raise BadInput("data", f"{what} go from {low} to {high}, and are to be in [0, {below})")
    return Field(shape, dtype.name, below)


def from_arrays(
    images: Any,
    labels: Any,
    *,
    classes: Any = None,
    target: Target | None = None,
    ids: Any = None,
    name: str = "arrays",
) -> Dataset:
    """A dataset of arrays in memory; ids are the rows where none are given.

    All are copied, so that a later change of the caller's does not reach the dataset behind its
    fingerprint; images in a `np.memmap` that is opened for reading only are not, and stay on the disk.
    Nothing is converted that could be meant in two ways: images of another dtype are refused with what
    makes uint8 of them.

    Args:
      images: uint8, [n, height, width, channel]; whatever `np.asarray` takes.
      labels: integers, [n]: 0 to `classes - 1`, and -1 where there is none to use; or what `target`
        takes.
      classes: how many there are, an integer, also if some never occur.
      target: what the labels are of, where that is no class of the example: see `kdjax.data.targets`.
      ids: integers below 2**32, [n], each once; `kdjax.data.unique_ids` makes them of names.
      name: for messages and the report.

    Raises:
      BadInput: no examples, images that are not uint8 or have no channels, labels or ids that are not
        one each, labels out of range, or ids that are not unique.
    """
    own_images = _images(images, name)
    return labelled(
        {"image": Field(own_images.shape[1:], "uint8")},
        lambda rows: {"image": own_images[rows]},
        {"images": own_images},
        labels,
        n=len(own_images),
        target=target_of(classes, target, name=name),
        ids=ids,
        name=name,
    )


def labelled(
    fields: Fields,
    read: Read,
    content: Mapping[str, np.ndarray],
    labels: Any,
    *,
    n: int,
    target: Target,
    ids: Any,
    name: str,
    lengths: Mapping[str, Int32[np.ndarray, " n"]] | None = None,
) -> Dataset:
    """A dataset with these labels and ids, checked and copied.

    Args:
      fields: of an example.
      read: see `Dataset`.
      content: that the fingerprint is of.
      labels: see `from_arrays`.
      n: how many examples there are.
      target: what the labels are of.
      ids: see `from_arrays`.
      name: for messages.
      lengths: of the ragged fields, see `Dataset`.

    Raises:
      BadInput: see `from_arrays`.
    """
    own_labels = target.read(_array(labels, f"labels of {name}"), n=n, name=name)
    own_ids = np.arange(n, dtype=np.uint32) if ids is None else _ids(ids, n, name)
    for array in (own_labels, own_ids):
        array.setflags(write=False)

    def marked(labels: Shaped[np.ndarray, "n ..."]) -> str:
        return fingerprint.of_arrays({**content, "labels": labels, "ids": own_ids})

    return Dataset(
        name=name,
        ids=own_ids,
        labels=own_labels,
        target=target,
        fields=fields,
        read=read,
        marked=marked,
        lengths=lengths or {},
    )


def _array(given: Any, what: str) -> np.ndarray:
    try:
        return np.asarray(given)
    except (ValueError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise BadInput("data", f"{what} are no array: {reason}") from None


def _images(given: Any, name: str) -> UInt8[np.ndarray, "n height width channel"]:
    """A copy of the images, which nobody can write to."""
    # `np.asarray` of an array that is on the disk is another one, which no longer says so.
    images = given if isinstance(given, np.memmap) else _array(given, f"images of {name}")
    if images.dtype != np.uint8:
        raise BadInput(
            "data",
            f"images of {name} are {images.dtype}, not uint8 from 0 to 255",
            _as_uint8(images),
        )
    if images.ndim == 3:
        raise BadInput(
            "data",
            f"images of {name} have shape {images.shape}, without channels",
            "give images[..., None]",
        )
    if images.ndim != 4:
        raise BadInput(
            "data",
            f"images of {name} have shape {images.shape}, not (examples, height, width, channel)",
        )
    if not len(images):
        raise BadInput("data", f"{name} has no examples", "name another split")
    if not images.size:
        raise BadInput(
            "data", f"images of {name} have shape {images.shape}: there is nothing to see"
        )
    if isinstance(images, np.memmap) and not images.flags.writeable:
        return images
    images = np.array(images, order="C", subok=False)
    images.setflags(write=False)
    return images


def _as_uint8(images: np.ndarray) -> str:
    """What makes uint8 images of those of another type, by the values that they have."""
    kind = images.dtype.kind
    if kind == "b":
        return "give images.astype(np.uint8) * 255"
    if kind not in "iuf":
        return "give numbers"
    if not images.size:
        return "give images.astype(np.uint8)"
    if kind == "f" and not np.isfinite(images).all():
        return "some are not finite; look at where they are from"
    low, high = images.min(), images.max()
    if low < 0:
        return f"they go from {low} to {high}; shift and scale them"
    if kind == "f":
        if high <= 1:
            return "give (images * 255).round().astype(np.uint8)"
        if high <= 255:
            return "give images.round().astype(np.uint8)"
        return f"they go from {low} to {high}; scale them"
    if high <= 255:
        return "give images.astype(np.uint8)"
    if images.dtype == np.uint16:
        return "give (images >> 8).astype(np.uint8), if all 16 bits are used"
    return f"they go from {low} to {high}; scale them"


def _ids(given: Any, n: int, name: str) -> UInt32[np.ndarray, " n"]:
    ids = _array(given, f"ids of {name}")
    if ids.shape != (n,):
        raise BadInput(
            "data", f"ids of {name} have shape {ids.shape} for {n} images", "give one each"
        )
    if ids.dtype.kind not in "iu":
        raise BadInput(
            "data",
            f"ids of {name} are {ids.dtype}, not integers",
            "kdjax.data.unique_ids makes integers of names",
        )
    if ids.min() < 0 or ids.max() >= 2**32:
        wrong = ids.min() if ids.min() < 0 else ids.max()
        raise BadInput(
            "data",
            f"id {wrong} of {name} is not in [0, 2**32)",
            "kdjax.data.unique_ids makes others of such",
        )
    return ids.astype(np.uint32)
