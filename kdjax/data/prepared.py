"""Prepared TFDS directories, read without TensorFlow and without a network."""

import hashlib
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from etils import epath
from jaxtyping import UInt32
from tensorflow_datasets.core.utils import version as tfds_version

from kdjax import fingerprint, paths
from kdjax.data.dataset import Dataset
from kdjax.types import BadInput


def prepared(
    name: str,
    split: str,
    *,
    data_dir: str | None,
    image_key: str = "image",
    label_key: str = "label",
    id_key: str = "id",
) -> Dataset:
    """A split of a dataset that `tfds build` (or `download_and_prepare`) has written.

    Args:
      name: `cifar100`, `cifar100:3.0.2`, or `name/config:version`; the newest version by default.
      split: as TFDS writes it: `train`, `train[:90%]`, `test`.
      data_dir: the directory that holds `NAME/VERSION/dataset_info.json`; may be `gs://`.
      image_key: feature with uint8 images, all of one shape.
      label_key: feature with integer labels.
      id_key: feature with the dataset's own ids; the row in the split where there is none.

    Raises:
      BadInput: nothing is prepared there, or the split or a feature does not exist or does not fit.
    """
    folder = _folder(name, data_dir)
    builder: Any = tfds.builder_from_directory(folder)
    features = builder.info.features
    for field, key in (("image_key", image_key), ("label_key", label_key)):
        if key not in features:
            known = ", ".join(sorted(features))
            raise BadInput(f"data.{field}: {name} has no feature {key!r}; it has {known}")
    shape = features[image_key].shape
    if len(shape) != 3 or None in shape:
        raise BadInput(
            f"data.image_key: images of {name} have shape {shape}; all must have one height and "
            "width: resize them when preparing the dataset"
        )
    if features[image_key].np_dtype != np.uint8:
        raise BadInput(
            f"data.image_key: {image_key!r} of {name} is {features[image_key].np_dtype}, not uint8"
        )
    if not isinstance(features[label_key], tfds.features.ClassLabel):
        known = [key for key in features if isinstance(features[key], tfds.features.ClassLabel)]
        raise BadInput(
            f"data.label_key: {label_key!r} of {name} is no ClassLabel; "
            f"it has {', '.join(sorted(known)) or 'none'}"
        )
    try:
        chosen = builder.info.splits[split]
    except (KeyError, ValueError, AssertionError):
        known = ", ".join(sorted(builder.info.splits))
        raise BadInput(f"data split {split!r}: {name} has {known}") from None

    if not chosen.num_examples:
        raise BadInput(f"data split {split!r}: it has no examples; name another")

    # Only the small features are decoded here: a record's image stays bytes.
    try:
        light = builder.as_data_source(
            split=split, decoders={image_key: tfds.decode.SkipDecoding()}
        )
    except NotImplementedError:
        raise BadInput(
            f"data.name: {folder} has no random access; prepare it again with "
            "--file_format=array_record"
        ) from None
    labels, ids = np.empty(len(light), np.int32), []
    for start in range(0, len(light), 1024):
        for row, record in enumerate(
            light.__getitems__(list(range(start, min(start + 1024, len(light))))), start
        ):
            labels[row] = record[label_key]
            ids.append(record.get(id_key, row))
    source = builder.as_data_source(split)

    def read(rows):
        return np.stack([r[image_key] for r in source.__getitems__([int(row) for row in rows])])

    return Dataset(
        name=f"{name} {split}",
        ids=unique_ids(ids),
        labels=labels,
        classes=features[label_key].num_classes,
        image_shape=tuple(shape),
        read=read,
        fingerprint=fingerprint.of_json(
            {
                "name": builder.info.full_name,
                "split": split,
                "examples": [
                    [f.skip, f.take, f.examples_in_shard] for f in chosen.file_instructions
                ],
                "ids": hashlib.sha256(repr(ids).encode()).hexdigest(),
                "labels": hashlib.sha256(labels.tobytes()).hexdigest(),
                "keys": [image_key, label_key],
            }
        ),
    )


def unique_ids(ids: Sequence[int | np.integer | bytes | str]) -> UInt32[np.ndarray, " n"]:
    """Stable uint32 ids: integers as they are where they fit, a hash of anything else.

    Two ids with one hash are told apart by hashing again, in the order of the ids themselves, so
    that the result does not depend on the order of the records.

    Raises:
      BadInput: an id stands twice.
    """
    texts = [id if isinstance(id, bytes) else str(id).encode() for id in ids]
    if len(set(texts)) != len(texts):
        raise BadInput("data.id_key: an id stands twice in the split; name a feature that does not")
    if all(isinstance(id, int | np.integer) and 0 <= id < 2**32 for id in ids):
        return np.asarray(ids, np.uint32)
    taken: dict[int, bytes] = {}
    for text in sorted(texts):
        salt = 0
        while (number := _hash(text, salt)) in taken:
            salt += 1
        taken[number] = text
    number_of = {text: number for number, text in taken.items()}
    return np.asarray([number_of[text] for text in texts], np.uint32)


def _hash(text: bytes, salt: int) -> int:
    digest = hashlib.blake2b(text, digest_size=4, salt=salt.to_bytes(8, "big"))
    return int.from_bytes(digest.digest(), "big")


def _folder(name: str, data_dir: str | None) -> epath.Path:
    """Where the dataset is prepared."""
    if data_dir is None:
        raise BadInput(
            f"data.data_dir: where is {name} prepared? Set --config.data.data_dir=DIR or the "
            "environment variable KDJAX_DATA_DIR"
        )
    bare, _, wanted = name.partition(":")
    root = paths.parse(data_dir, field="data.data_dir")
    if not root.is_dir():
        raise BadInput(f"data.data_dir: {data_dir} is not a directory")
    if not all(re.fullmatch(r"\w[\w.+-]*", part) for part in bare.split("/")):
        raise BadInput(
            f"data.name: {name!r} is no name of a dataset; write NAME, or NAME/CONFIG:VERSION"
        )
    found = [p.parent for p in (root / bare).glob("*/dataset_info.json")]
    found = {p.name: p for p in found if tfds_version.Version.is_valid(p.name)}
    if wanted in found:
        return found[wanted]
    if wanted or not found:
        have = f"it has {', '.join(sorted(found))}" if found else "nothing is prepared there"
        raise BadInput(
            f"data.name: no {name} in {data_dir}: {have}. Prepare it once: pip install "
            f"'kdjax[prepare]' && tfds build {bare} --data_dir={data_dir} "
            "--file_format=array_record"
        )
    return found[max(found, key=tfds_version.Version)]
