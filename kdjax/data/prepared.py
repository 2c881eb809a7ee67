"""Prepared TFDS directories, read without TensorFlow and without a network."""

import hashlib
import os
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from etils import epath, epy
from jaxtyping import Int, UInt8

from kdjax import files, fingerprint, paths
from kdjax.data import pictures
from kdjax.data.dataset import Dataset
from kdjax.data.ids import unique_ids
from kdjax.data.records import MEND, Records
from kdjax.data.seen import Kept, Seen
from kdjax.data.targets import Classes
from kdjax.types import BadInput, Field

with epy.lazy_imports():  # slow to import, and other sets do without
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.utils import version as tfds_version

ID_KEY = "id"
"""Feature with a dataset's own ids, where it has one of this name."""

FEATURES = "features.json"
"""What a record consists of, beside the records."""


def prepared(
    name: str,
    split: str,
    *,
    data_dir: str | None,
    image_key: str = "image",
    label_key: str = "label",
    id_key: str = ID_KEY,
    kept: Kept | None = None,
) -> Dataset:
    """A split of a dataset that `tfds build` (or `download_and_prepare`) has written.

    Every record is read once, here: its label, its id and the header of its picture; not at all where
    `kept` has what they say. The pixels are decoded when they are asked for, as
    `kdjax.data.pictures.pixels` says: the same whether OpenCV is installed or not.

    Args:
      name: `cifar100`, `cifar100:3.0.2`, or `name/config:version`; the newest version by default.
      split: as TFDS writes it: `train`, `train[:90%]`, `test`.
      data_dir: the directory that holds `NAME/VERSION/dataset_info.json`; may be `gs://`.
      image_key: feature with uint8 images; all that are read are of one shape.
      label_key: feature with the class, -1 where an example has none.
      id_key: feature with the dataset's own ids; where there is no `id`, the row in the split.
      kept: what the records said at an earlier start, of exactly these files.

    Raises:
      BadInput: nothing is prepared there, the split or a feature does not exist or does not fit, or a
        file, a record or a picture is damaged or not what `features.json` says.
    """
    folder = folder_of(name, data_dir)
    builder = builder_of(folder)
    features = builder.info.features
    wanted = {"image_key": image_key, "label_key": label_key}
    if id_key != ID_KEY or ID_KEY in features:
        wanted["id_key"] = id_key
    shape, classes = check(features, name, **wanted)
    chosen = split_of(builder, split, name=name)
    records = Records(builder, split, name=f"{name} {split}", keys=list(wanted.values()))
    encoded = _is_encoded(features[image_key])

    def read_all() -> Seen:
        return _read_once(records, wanted, classes=classes, encoded=encoded, shape=shape)

    if kept is None:
        seen = read_all()
    else:
        what = {
            "name": builder.info.full_name,
            "split": split,
            "keys": wanted,
            "classes": classes,
            "features": files.sha256(folder / FEATURES),
            "files": [[os.path.basename(s.path), *s[1:]] for s in records.shards],
        }
        seen = kept.seen(what, list(dict.fromkeys(s.path for s in records.shards)), read_all)
    described = {
        "name": builder.info.full_name,
        "split": split,
        "examples": [[f.skip, f.take, f.examples_in_shard] for f in chosen.file_instructions],
        "images": seen.images,
        "ids": seen.own_ids,
        "keys": [image_key, label_key],
    }
    return Dataset(
        name=records.name,
        ids=seen.ids,
        labels=seen.labels,
        target=Classes(classes),
        fields={"image": Field(seen.shape, "uint8")},
        read=_reader(records, image_key, seen),
        marked=lambda labels: fingerprint.of_json(
            described | {"labels": hashlib.sha256(labels.tobytes()).hexdigest()}
        ),
    )


def check(
    features: Any, name: str, **wanted: str
) -> tuple[tuple[int | None, int | None, int], int]:
    """Shape of the pictures and number of the classes, as far as they are declared.

    Args:
      features: of the dataset.
      name: of the dataset.
      **wanted: which feature is asked for, by the field that says it.

    Raises:
      BadInput: one is not there, or is not what it is asked for.
    """
    check_keys(features, wanted, name)
    shape = _declared_shape(features, wanted["image_key"], name)
    return shape, declared_classes(features, wanted["label_key"], name, field="data.label_key")


def check_key(features: Any, key: str, name: str, *, field: str) -> None:
    """Raises `BadInput` where a dataset has no such feature.

    Args:
      features: of the dataset; TFDS keeps those that it read from a file in no certain order.
      key: of the feature.
      name: of the dataset.
      field: which names the feature, for messages.
    """
    if key not in features:
        known = ", ".join(sorted(features))
        raise BadInput(field, f"{name} has no feature {key!r}", f"it has {known}")


def check_keys(features: Any, wanted: Mapping[str, str], name: str) -> None:
    """Raises `BadInput` where a feature is not there, or an id is not one number or text."""
    for field, key in wanted.items():
        check_key(features, key, name, field=f"data.{field}")
    if (key := wanted.get("id_key")) is not None and features[key].shape != ():
        raise BadInput(
            "data.id_key",
            f"{key!r} of {name} has shape {features[key].shape}",
            "an id is one number or one text",
        )


def declared_classes(features: Any, key: str, name: str, *, field: str) -> int:
    """How many classes there are; `field` names the feature, for messages."""
    if not isinstance(features[key], tfds.features.ClassLabel):
        known = [key for key in features if isinstance(features[key], tfds.features.ClassLabel)]
        raise BadInput(
            field,
            f"{key!r} of {name} is no ClassLabel",
            f"it has {', '.join(sorted(known)) or 'none'}",
        )
    if not features[key].num_classes:
        raise BadInput(
            field,
            f"{key!r} of {name} does not say how many classes there are",
            "prepare it with ClassLabel(num_classes=...)",
        )
    return features[key].num_classes


def split_of(builder: Any, split: str, *, name: str) -> Any:
    """What TFDS says of a split, which has examples."""
    try:
        chosen = builder.info.splits[split]
    except (KeyError, ValueError, AssertionError):
        known = ", ".join(sorted(builder.info.splits))
        raise BadInput("data", f"split {split!r}: {name} has {known}") from None
    if not chosen.num_examples:
        raise BadInput("data", f"split {split!r}: it has no examples", "name another")
    return chosen


def builder_of(folder: epath.Path) -> Any:
    """The builder of TFDS for what is prepared in a folder.

    Raises:
      BadInput: what describes it there is missing or damaged, or its files have no random access.
    """
    if not (folder / FEATURES).exists():
        raise BadInput("data", f"{folder / FEATURES} is missing", MEND)
    try:
        builder = tfds.builder_from_directory(folder)
    except Exception as error:  # of JSON, of protobuf, of TFDS
        reason = " ".join(str(error).split())
        raise BadInput(
            "data",
            f"features.json and dataset_info.json of {folder} cannot be read ({reason})",
            MEND,
        ) from None
    if builder.info.file_format != tfds.core.FileFormat.ARRAY_RECORD:
        raise BadInput(
            "data.name",
            f"{folder} has no random access",
            "move it away, and prepare it with kdjax prepare, in array_record files",
        )
    return builder


def _is_encoded(feature: Any) -> bool:
    return isinstance(feature, tfds.features.Image)


def _declared_shape(features: Any, key: str, name: str) -> tuple[int | None, int | None, int]:
    """Height and width, None for whatever the pictures have, and the channels."""
    feature = features[key]
    shape = feature.shape
    if not isinstance(shape, tuple) or len(shape) != 3:
        raise BadInput(
            "data.image_key", f"images of {name} have shape {shape}, not (height, width, channel)"
        )
    if feature.np_dtype != np.uint8:
        raise BadInput(
            "data.image_key",
            f"{key!r} of {name} is {feature.np_dtype}, not uint8",
            "prepare it as uint8 from 0 to 255: what its numbers mean, and so how to scale them, is "
            "not known here",
        )
    if _is_encoded(feature) and shape[-1] not in (1, 2, 3, 4):
        raise BadInput(
            "data.image_key",
            f"pictures of {name} have {shape[-1]} channels",
            "1 to 4 can be decoded",
        )
    if not _is_encoded(feature) and None in shape:
        raise BadInput(
            "data.image_key",
            f"images of {name} have shape {shape}",
            "all must have one height and width: resize them when preparing the dataset",
        )
    return shape


def _read_once(
    records: Records,
    keys: Mapping[str, str],
    *,
    classes: int,
    encoded: bool,
    shape: tuple[int | None, int | None, int],
) -> Seen:
    """Reads every record once.

    Raises:
      BadInput: one is damaged, its image is not of the shape that is declared, or of one with the
        others where none is, its label is no class, or an id stands twice.
    """
    labels, ids, digest = np.empty(len(records), np.int64), [], hashlib.sha256()
    height, width, channels = shape
    first = "features.json says"
    for start in range(0, len(records), 1024):
        rows = range(start, min(start + 1024, len(records)))
        for row, record in zip(rows, records.read(rows), strict=True):
            labels[row] = record[keys["label_key"]]
            ids.append(record[keys["id_key"]] if "id_key" in keys else row)
            image = record[keys["image_key"]]
            digest.update(image if encoded else np.ascontiguousarray(image).tobytes())
            try:
                found = pictures.header(image) if encoded else image.shape[:2]
            except pictures.Unfit as error:
                raise _unfit(records, row, ids[row], str(error)) from None
            if None in (height, width) and (height or found[0], width or found[1]) == found:
                height, width = found
                first = f"picture {_text(ids[row])} is"
            if found != (height, width):
                raise _unfit(
                    records,
                    row,
                    ids[row],
                    f"it is {found[0]} x {found[1]}, where {first} {height} x {width}",
                    mend="all must have one height and width: resize them when preparing the dataset",
                )
    assert height is not None
    assert width is not None
    numbers = unique_ids(ids)
    Classes(classes).check(labels, name=records.name)
    return Seen(
        shape=(height, width, channels),
        labels=labels.astype(np.int32),
        ids=numbers,
        own=ids if "id_key" in keys else range(len(ids)),
        images=digest.hexdigest(),
        own_ids=hashlib.sha256(repr(ids).encode()).hexdigest(),
    )


def _reader(
    records: Records, key: str, seen: Seen
) -> Callable[[Int[np.ndarray, " b"]], dict[str, UInt8[np.ndarray, "b height width channel"]]]:
    encoded = _is_encoded(records.features[key])

    def read(
        rows: Int[np.ndarray, " b"],
    ) -> dict[str, UInt8[np.ndarray, "b height width channel"]]:
        found = np.empty((len(rows), *seen.shape), np.uint8)
        whole = [int(row) for row in rows]
        for i, (row, record) in enumerate(zip(whole, records.read(whole), strict=True)):
            image = record[key]
            if encoded:
                try:
                    image = pictures.pixels(image, channels=seen.shape[-1])
                except pictures.Unfit as error:
                    raise _unfit(records, row, seen.own[row], str(error)) from None
            if image.shape != seen.shape:
                raise _unfit(records, row, seen.own[row], f"it has changed, to {image.shape}")
            found[i] = image
        return {"image": found}

    return read


def _unfit(records: Records, row: int, id: Any, what: str, *, mend: str = MEND) -> BadInput:
    return records.fault(
        row, f"picture {_text(id)} is not what features.json says: {what}", mend=mend
    )


def _text(id: Any) -> str:
    return repr(id.decode(errors="backslashreplace") if isinstance(id, bytes) else id)


def folder_of(name: str, data_dir: str | None) -> epath.Path:
    """Where the dataset is prepared."""
    if data_dir is None:
        raise BadInput(
            "data.data_dir",
            f"where is {name} prepared? Set --config.data.data_dir=DIR or the environment variable "
            "KDJAX_DATA_DIR",
        )
    root = paths.parse(data_dir, field="data.data_dir")
    if not root.is_dir():
        raise BadInput("data.data_dir", f"{data_dir} is not a directory")
    found = versions(name, root)
    folder = newest(found, name)
    if folder is None:
        have = f"it has {', '.join(sorted(found))}" if found else "nothing is prepared there"
        raise BadInput(
            "data.name",
            f"no {name} in {data_dir}: {have}. Prepare it once: pip install 'kdjax[prepare]' && kdjax "
            f"prepare {name} --data_dir={data_dir}",
        )
    return folder


def versions(name: str, root: epath.Path) -> dict[str, epath.Path]:
    """What is prepared of a dataset, by version.

    Args:
      name: see `prepared`.
      root: the directory of all datasets, which may not be there.

    Raises:
      BadInput: this is no name of a dataset.
    """
    bare = name.partition(":")[0]
    if not all(re.fullmatch(r"\w[\w.+-]*", part) for part in bare.split("/")):
        raise BadInput(
            "data.name", f"{name!r} is no name of a dataset", "write NAME, or NAME/CONFIG:VERSION"
        )
    found = [p.parent for p in (root / bare).glob("*/dataset_info.json")]
    return {p.name: p for p in found if tfds_version.Version.is_valid(p.name)}


def newest(found: Mapping[str, epath.Path], name: str) -> epath.Path | None:
    """The folder of the version that a name asks for, of `versions`; None where it is not there."""
    wanted = name.partition(":")[2]
    if wanted or not found:
        return found.get(wanted)
    return found[max(found, key=tfds_version.Version)]
