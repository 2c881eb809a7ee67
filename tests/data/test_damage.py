"""Prepared sets that are damaged, or whose pictures do not fit: one line with split, record and file."""

import os
import re

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from kdjax.data import prepared, stream_feeds
from kdjax.types import BadInput
from tests.prepared_sets import encoded, png, write

IMAGES = np.random.default_rng(0).integers(256, size=(9, 8, 8, 3), dtype=np.uint8)
SHARDS = (range(5), range(5, 9))
_SECOND = "tiny-train.array_record-00001-of-00002"


def _examples(pictures):
    return [
        [{"image": pictures[row], "label": row % 3, "id": f"e{row}"} for row in s] for s in SHARDS
    ]


def _features(shape=(8, 8, 3)):
    return {
        "image": tfds.features.Image(shape=shape),
        "label": tfds.features.ClassLabel(num_classes=3),
        "id": tfds.features.Text(),
    }


@pytest.fixture
def tiny(tmp_path):
    """A set whose record 6 has another picture, in features of a shape."""

    def made(picture=None, shape=(8, 8, 3)):
        pictures = [encoded(image) for image in IMAGES]
        if picture is not None:
            pictures[6] = picture
        folder = tmp_path / "tiny" / "1.0.0"
        write(folder, _features(shape), {"train": _examples(pictures)})
        return folder

    return made


def _read(folder, split="train"):
    return prepared("tiny", split, data_dir=str(folder.parent.parent))


@pytest.mark.parametrize("shape", [(8, 8, 3), (None, None, 3)])
@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (encoded(np.zeros((10, 8, 3), np.uint8)), r"it is 10 x 8, where .* 8 x 8"),
        (
            encoded(Image.new("CMYK", (8, 8)), "JPEG"),
            "its pixels are CMYK; convert it to RGB",
        ),
        (b"nothing", "it is no picture that can be opened"),
    ],
)
def test_a_picture_that_does_not_fit_is_named_at_once(tiny, picture, message, shape):
    folder = tiny(picture, shape)
    with pytest.raises(BadInput, match=message) as caught:
        _read(folder)
    said = str(caught.value)
    assert said.startswith(f"data: tiny train, record 1 of {folder / _SECOND}: picture 'e6' ")
    assert "\n" not in said
    # A cut begins elsewhere and names the same record; a cut without it is read.
    with pytest.raises(BadInput, match=r"record 1 of .*00001-of-00002: picture 'e6' "):
        _read(folder, "train[5:]")
    assert len(_read(folder, "train[:6]")) == 6


_PNG = encoded(IMAGES[6])


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (_PNG[:60] + bytes([_PNG[60] ^ 1]) + _PNG[61:], "its pixels are damaged"),
        (encoded(np.full((8, 8, 4), 7, np.uint8)), "it has transparent pixels"),
    ],
)
def test_pixels_that_do_not_fit_are_named_when_they_are_read(tiny, picture, message):
    folder = tiny(picture)
    dataset = _read(folder)
    np.testing.assert_array_equal(dataset.read(np.arange(6))["image"], IMAGES[:6])
    for read in (dataset.inputs, lambda: list(_streamed(dataset))):
        with pytest.raises(BadInput, match=message) as caught:
            read()
        said = str(caught.value)
        assert said.startswith(f"data: tiny train, record 1 of {folder / _SECOND}: picture 'e6' ")
        assert "\n" not in said


def _streamed(dataset):
    return stream_feeds(
        dataset, seed=0, batch=3, share=slice(0, 3), start=0, stop=6, dispatch_steps=1, threads=2
    )


def test_pictures_of_other_encodings_are_the_pixels_they_show(tiny):
    palette = np.random.default_rng(1).integers(256, size=(4, 3), dtype=np.uint8)
    index = np.arange(64).reshape(8, 8) % 4
    folder = tiny(png(index, depth=2, colour_type=3, chunks={b"PLTE": palette.tobytes()}))
    found = _read(folder).inputs()["image"]
    np.testing.assert_array_equal(found[6], palette[index])
    np.testing.assert_array_equal(found[[5, 7]], IMAGES[[5, 7]])


def _flip(file, at):
    content = bytearray(file.read_bytes())
    content[at] ^= 0xFF
    file.write_bytes(content)


def _says(folder, old, new):
    info = folder / "dataset_info.json"
    assert old in info.read_text()
    info.write_text(info.read_text().replace(old, new))


def _other_features(folder, **changes):
    tfds.features.FeaturesDict(_features() | changes).save_config(folder)


@pytest.mark.parametrize(
    ("damage", "message"),
    {
        "missing": (
            lambda f: (f / _SECOND).unlink(),
            "the file .*00001-of-00002 is missing; fetch",
        ),
        "empty": (
            lambda f: os.truncate(f / _SECOND, 0),
            "00001-of-00002 has 0 records, and .* says 4",
        ),
        "half": (
            lambda f: os.truncate(f / _SECOND, (f / _SECOND).stat().st_size // 2),
            "the file .*00001-of-00002 has 0 records, and dataset_info.json says 4",
        ),
        "foreign": (
            lambda f: (f / _SECOND).write_bytes(b"hello" * 20_000),
            "the file .*00001-of-00002 (cannot be read|has 0 records)",
        ),
        "a folder": (
            lambda f: ((f / _SECOND).unlink(), (f / _SECOND).mkdir()),
            "00001-of-00002 is a folder, where a file should be",
        ),
        "a header": (
            lambda f: _flip(f / _SECOND, 100),
            "record 0 of .*00001-of-00002: it cannot be",
        ),
        "a byte": (lambda f: _flip(f / _SECOND, 300), "record 0 of .*00001-of-00002: it cannot be"),
        "too many": (
            lambda f: _says(f, '"4"', '"6"'),
            "00001-of-00002 has 4 records, and dataset_info.json says 6",
        ),
        "too few": (
            lambda f: _says(f, '"4"', '"2"'),
            "00001-of-00002 has 4 records, and dataset_info.json says 2",
        ),
        "no features": (lambda f: (f / "features.json").unlink(), r"features\.json is missing"),
        "no json": (
            lambda f: (f / "features.json").write_text("{"),
            r"features\.json and dataset_info\.json of .* cannot be read",
        ),
        "no info": (
            lambda f: (f / "dataset_info.json").write_text("{"),
            r"features\.json and dataset_info\.json of .* cannot be read",
        ),
        "other features": (
            lambda f: _other_features(f, klass=tfds.features.ClassLabel(num_classes=3)),
            "record 0 of .*00000-of-00002: it has no 'klass', which features.json says it has",
        ),
        "other types": (
            lambda f: _other_features(f, id=tfds.features.Scalar(np.int64)),
            r"record 0 of .*00000-of-00002: it is not what features\.json says",
        ),
        "fewer classes": (
            lambda f: _other_features(f, label=tfds.features.ClassLabel(num_classes=2)),
            "label 2 of tiny train is out of range; 2 classes are 0 to 1",
        ),
        "no number of classes": (
            lambda f: _other_features(f, label=tfds.features.ClassLabel()),
            "does not say how many classes there are",
        ),
    }.values(),
)
def test_damage_is_one_line(tiny, damage, message):
    folder = tiny()
    damage(folder)
    keys = {"label_key": "klass"} if "klass" in message else {}
    with pytest.raises(BadInput, match=message) as caught:
        prepared("tiny", "train", data_dir=str(folder.parent.parent), **keys)
    said = str(caught.value)
    assert "\n" not in said
    assert re.match(r"data[:.]", said)


def test_a_file_that_is_lost_in_the_middle_of_an_epoch(tiny):
    folder = tiny()
    dataset = _read(folder)
    batches = _streamed(dataset)
    next(batches)
    os.truncate(folder / _SECOND, 10)
    with pytest.raises(
        BadInput, match=r"tiny train, record \d of .*00001-of-00002: it .* fetch the"
    ):
        for _ in batches:
            pass


def test_an_example_without_a_label_is_unlabelled(tmp_path):
    folder = tmp_path / "tiny" / "1.0.0"
    examples = _examples([encoded(image) for image in IMAGES])
    for shard in examples:
        for example in shard:
            example["label"] = -1
    write(folder, _features(), {"train": examples})
    assert _read(folder).labels.tolist() == [-1] * 9
