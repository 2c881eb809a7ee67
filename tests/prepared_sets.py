"""Small prepared TFDS directories, written without TensorFlow as `tfds build` leaves them."""

import io
import json
import pathlib
import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter
from PIL import Image
from tensorflow_datasets.core.example_serializer import ExampleSerializer


def write(
    folder: pathlib.Path,
    features: Mapping[str, Any],
    splits: Mapping[str, Sequence[Sequence[Mapping[str, Any]]]],
    *,
    file_format: str = "array_record",
) -> None:
    """Writes records, `features.json` and `dataset_info.json` of `.../NAME/VERSION`.

    Args:
      folder: that does not exist yet.
      features: by name.
      splits: the examples of each shard of each split; pictures as bytes.
      file_format: that the files claim to be.
    """
    described = tfds.features.FeaturesDict(dict(features))
    serializer = ExampleSerializer(described.get_serialized_info())
    folder.mkdir(parents=True)
    described.save_config(folder)
    name = folder.parent.name
    for split, shards in splits.items():
        for i, examples in enumerate(shards):
            file = f"{name}-{split}.{file_format}-{i:05d}-of-{len(shards):05d}"
            writer = ArrayRecordWriter(str(folder / file), "group_size:1")
            for example in examples:
                writer.write(serializer.serialize_example(dict(example)))
            writer.close()
    info = {
        "name": name,
        "version": folder.name,
        "fileFormat": file_format,
        "splits": [
            {
                "name": split,
                "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
                "numBytes": "0",
                "shardLengths": [str(len(examples)) for examples in shards],
            }
            for split, shards in splits.items()
        ],
    }
    (folder / "dataset_info.json").write_text(json.dumps(info))


def encoded(image: Any, format: str = "PNG", **options: Any) -> bytes:
    """A picture of an array, or of a Pillow image, as Pillow writes it."""
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    buffer = io.BytesIO()
    picture.save(buffer, format, **options)
    return buffer.getvalue()


def png(
    samples: np.ndarray,
    *,
    depth: int,
    colour_type: int,
    chunks: Mapping[bytes, bytes] | None = None,
) -> bytes:
    """A PNG byte by byte: what Pillow cannot write, such as 2 bits of grey or 16 of colour.

    Args:
      samples: [height, width, ...] of integers below `2**depth`.
      depth: bits of a sample.
      colour_type: 0 grey, 2 colour, 3 palette, 4 grey and alpha, 6 colour and alpha.
      chunks: that stand before the pixels, such as `PLTE`.

    Reference: https://www.w3.org/TR/png-3/
    """

    def chunk(name: bytes, content: bytes) -> bytes:
        checked = name + content
        return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))

    lines = []
    for line in samples.reshape(len(samples), -1):
        if depth == 16:
            lines.append(line.astype(">u2").tobytes())
        else:
            bits = np.unpackbits(line.astype(np.uint8)[:, None], axis=1)[:, 8 - depth :]
            lines.append(np.packbits(bits.ravel()).tobytes())
    height, width = samples.shape[:2]
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)),
            *(chunk(name, content) for name, content in (chunks or {}).items()),
            chunk(b"IDAT", zlib.compress(b"".join(b"\0" + line for line in lines))),
            chunk(b"IEND", b""),
        ]
    )
