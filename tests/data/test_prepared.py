"""On a tiny TFDS directory written here without TensorFlow, and on a real one where there is one."""

import hashlib
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds

from kdjax.data import Classes, prepared
from kdjax.data.ids import unique_ids
from kdjax.types import BadInput
from tests.prepared_sets import encoded, write

IMAGES = np.random.default_rng(0).integers(256, size=(12, 4, 5, 3), dtype=np.uint8)
SHARDS = {"train": [range(5), range(5, 9)], "test": [range(9, 12)]}


def _write(folder, *, images=IMAGES, file_format="array_record", keep_ids=True):
    """What `tfds build` leaves behind: records, `features.json`, `dataset_info.json`."""
    features = {
        "image": tfds.features.Image(shape=(4, 5, 3)),
        "mirror": tfds.features.Image(shape=(4, 5, 3)),
        "picture": tfds.features.Image(shape=(None, None, 3)),
        "deep": tfds.features.Image(shape=(4, 5, 3), dtype=np.uint16),
        "depth": tfds.features.Tensor(shape=(4, 5, 1), dtype=np.float32),
        "label": tfds.features.ClassLabel(num_classes=3),
        "coarse": tfds.features.ClassLabel(num_classes=2),
        "number": tfds.features.Scalar(np.int64),
    } | ({"id": tfds.features.Text()} if keep_ids else {})

    def example(split, row):
        found = {
            "image": encoded(images[row]),
            "mirror": encoded(images[row, :, ::-1]),
            "picture": encoded(images[row]),
            "deep": encoded(images[row]),
            "depth": np.zeros((4, 5, 1), np.float32),
            "label": row % 3,
            "coarse": row % 2,
            "number": 2**31 + row,
        }
        return found | ({"id": f"{split}_{row}".encode()} if keep_ids else {})

    splits = {
        split: [[example(split, row) for row in rows] for rows in shards]
        for split, shards in SHARDS.items()
    }
    write(folder, features, splits, file_format=file_format)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    root = tmp_path_factory.mktemp("tfds")
    for version in ("1.0.0", "1.9.0", "1.10.0"):
        _write(root / "tiny" / version)
    _write(root / "nameless" / "1.0.0", keep_ids=False)
    _write(root / "sequential" / "1.0.0", file_format="tfrecord")
    (root / "empty").mkdir()
    return str(root)


def test_a_split_is_read_as_it_was_written(data_dir):
    train = prepared("tiny", "train", data_dir=data_dir)
    assert (train.name, train.target, train.fields["image"].shape) == (
        "tiny train",
        Classes(3),
        (4, 5, 3),
    )
    np.testing.assert_array_equal(train.labels, np.arange(9) % 3)
    np.testing.assert_array_equal(train.inputs()["image"], IMAGES[:9])
    np.testing.assert_array_equal(train.read(np.array([7, 0, 7]))["image"], IMAGES[[7, 0, 7]])
    # Hashes of the dataset's own ids: stable, whatever is read beside them.
    expected = [
        int.from_bytes(
            hashlib.blake2b(f"train_{row}".encode(), digest_size=4, salt=bytes(8)).digest(), "big"
        )
        for row in range(9)
    ]
    assert train.ids.tolist() == expected


def test_cuts_and_joins_are_those_of_tfds(data_dir):
    train = prepared("tiny", "train", data_dir=data_dir)
    cut = prepared("tiny", "train[3:7]", data_dir=data_dir)  # across two shards
    np.testing.assert_array_equal(cut.ids, train.ids[3:7])
    np.testing.assert_array_equal(cut.inputs()["image"], IMAGES[3:7])
    np.testing.assert_array_equal(
        prepared("tiny", "test", data_dir=data_dir).inputs()["image"], IMAGES[9:]
    )
    both = prepared("tiny", "train+test", data_dir=data_dir)
    np.testing.assert_array_equal(both.inputs()["image"], IMAGES)
    np.testing.assert_array_equal(both.labels, np.arange(12) % 3)


def test_other_features_by_name(data_dir):
    found = prepared(
        "tiny", "test", data_dir=data_dir, label_key="coarse", id_key="number", image_key="mirror"
    )
    np.testing.assert_array_equal(found.inputs()["image"], IMAGES[9:, :, ::-1])
    assert (found.target, found.labels.tolist()) == (Classes(2), [1, 0, 1])
    assert found.ids.tolist() == [2**31 + row for row in (9, 10, 11)]


def test_rows_are_ids_where_there_are_none(data_dir):
    found = prepared("nameless", "test", data_dir=data_dir)
    assert found.ids.tolist() == [0, 1, 2]


def test_pictures_of_one_size_need_no_declared_one(data_dir):
    found = prepared("tiny", "train", data_dir=data_dir, image_key="picture")
    assert found.fields["image"].shape == (4, 5, 3)
    np.testing.assert_array_equal(found.inputs()["image"], IMAGES[:9])


def test_the_newest_version_unless_one_is_named(data_dir, tmp_path):
    newest = prepared("tiny", "test", data_dir=data_dir).fingerprint
    named = {
        v: prepared(f"tiny:{v}", "test", data_dir=data_dir).fingerprint for v in ("1.9.0", "1.10.0")
    }
    assert newest == named["1.10.0"] != named["1.9.0"]


def test_a_config_of_a_dataset(tmp_path):
    _write(tmp_path / "tiny" / "small" / "1.0.0")
    # TFDS names the files after the dataset; here the folder above the version is its config.
    assert len(prepared("tiny/small", "test", data_dir=str(tmp_path))) == 3
    assert len(prepared("tiny/small:1.0.0", "test", data_dir=str(tmp_path))) == 3


def test_the_fingerprint_is_of_what_is_read_and_not_of_where(data_dir, tmp_path):
    _write(tmp_path / "elsewhere" / "tiny" / "1.10.0")
    here = prepared("tiny", "train", data_dir=data_dir)
    there = prepared("tiny", "train", data_dir=str(tmp_path / "elsewhere"))
    assert here.fingerprint == there.fingerprint
    others = [
        prepared("tiny", split, data_dir=data_dir, **keys)
        for split, keys in [
            ("test", {}),
            ("train[:5]", {}),
            ("train[5:]", {}),
            ("train", {"label_key": "coarse"}),
            ("train", {"id_key": "number"}),
            ("train", {"image_key": "mirror"}),
        ]
    ]
    assert len({here.fingerprint, *(other.fingerprint for other in others)}) == 7


@pytest.mark.parametrize(
    ("name", "split", "changes", "message"),
    [
        (
            "tiny",
            "train",
            {"data_dir": None},
            r"data\.data_dir: where is tiny prepared\? Set .*=DIR",
        ),
        ("tiny", "train", {"data_dir": "/nowhere"}, r"data\.data_dir: /nowhere is not a directory"),
        (
            "tinny",
            "train",
            {},
            r"data\.name: no tinny in .*: nothing is prepared .* kdjax prepare tinny",
        ),
        ("empty", "train", {}, r"data\.name: no empty in .*: nothing is prepared there"),
        (
            "tiny:2.0.0",
            "train",
            {},
            r"data\.name: no tiny:2\.0\.0 .* has 1\.0\.0, 1\.10\.0, 1\.9\.0",
        ),
        ("tiny", "validation", {}, r"data: split 'validation': tiny has test, train"),
        ("tiny", "train[", {}, r"data: split 'train\[': tiny has test, train"),
        ("tiny", "train[2:2]", {}, r"data: split 'train\[2:2\]': it has no examples"),
        (
            "tiny",
            "train",
            {"image_key": "img"},
            r"data\.image_key: tiny has no feature 'img'; it ha",
        ),
        (
            "tiny",
            "train",
            {"label_key": "y"},
            r"data\.label_key: tiny has no feature 'y'; .* label,",
        ),
        (
            "tiny",
            "train",
            {"image_key": "label"},
            r"data\.image_key: images of tiny have shape \(\)",
        ),
        (
            "tiny",
            "train",
            {"image_key": "deep"},
            r"data\.image_key: 'deep' of tiny is uint16, not uint8; prepare it as uint8",
        ),
        ("tiny", "train", {"id_key": "key"}, r"data\.id_key: tiny has no feature 'key'; .* id,"),
        ("nameless", "test", {"id_key": "key"}, r"data\.id_key: nameless has no feature 'key'"),
        ("tiny", "train", {"id_key": "depth"}, r"data\.id_key: 'depth' .* shape \(4, 5, 1\); an"),
        (
            "tiny",
            "train",
            {"image_key": "depth"},
            r"data\.image_key: 'depth' .* float32, not uint8",
        ),
        ("tiny", "train", {"label_key": "id"}, r"data\.label_key: 'id' .* it has coarse, label"),
        ("tiny", "train", {"label_key": "number"}, r"data\.label_key: 'number' .* no ClassLabel"),
        ("tiny", "train", {"id_key": "label"}, r"data\.id_key: an id stands twice"),
        (
            "sequential",
            "train",
            {},
            r"data\.name: .*sequential.* no random access; move it away",
        ),
    ],
)
def test_faults_are_named(data_dir, name, split, changes, message):
    with pytest.raises(BadInput, match=message) as caught:
        prepared(name, split, **{"data_dir": data_dir, **changes})
    assert "\n" not in str(caught.value)


def test_tensorflow_is_never_imported_and_what_is_slow_where_it_is_needed(data_dir):
    program = """
import sys
import kdjax.commands.exits, kdjax.commands.run
slow = ("sklearn", "matplotlib", "scipy.stats", "scipy.optimize", "tensorflow_datasets", "grain")
loaded = [name for name in slow if name in sys.modules]
assert not loaded, loaded
from kdjax.data import Classes, prepared
assert len(prepared("tiny", "train", data_dir=sys.argv[1]).inputs()["image"]) == 9
loaded = [name for name in sys.modules if name.split(".")[0] == "tensorflow"]
assert not loaded, loaded
"""
    root = pathlib.Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", program, data_dir],
        capture_output=True,
        text=True,
        check=False,
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    assert done.returncode == 0, done.stderr


def test_integers_stay_what_they_are():
    assert unique_ids([7, 0, 2**32 - 1]).tolist() == [7, 0, 2**32 - 1]
    assert unique_ids([np.int64(3), np.int64(1)]).tolist() == [3, 1]
    # One that does not fit in 32 bits, and all are hashed.
    hashed = unique_ids([7, 2**32])
    assert hashed.tolist() != [7, 0]
    assert unique_ids(["7", str(2**32)]).tolist() == hashed.tolist()


def _hash(text, salt):
    digest = hashlib.blake2b(text, digest_size=4, salt=salt.to_bytes(8, "big")).digest()
    return int.from_bytes(digest, "big")


def test_a_real_collision_is_resolved_whatever_the_order():
    # Found by search among image_0, image_1, ...: 32 bits are few enough for a birthday.
    first, second = b"image_37826", b"image_92521"
    assert _hash(first, 0) == _hash(second, 0) == 3602215228
    found = unique_ids([first, b"image_1", second])
    assert found.tolist() == [_hash(first, 0), _hash(b"image_1", 0), _hash(second, 1)]
    assert unique_ids([second, first, b"image_1"]).tolist() == found[[2, 0, 1]].tolist()


@pytest.mark.parametrize("ids", [[1, 2, 1], [b"a", b"b", b"a"], ["a", b"a"], [-1, -1], [1, "1"]])
def test_an_id_that_stands_twice_is_refused(ids):
    with pytest.raises(BadInput, match=r"^data\.id_key: an id stands twice"):
        unique_ids(ids)


def test_cifar100_as_published():
    directory = os.environ.get("KDJAX_DATA_DIR")
    if not directory or not (pathlib.Path(directory) / "cifar100").is_dir():
        pytest.skip("no CIFAR-100 is prepared: set KDJAX_DATA_DIR to a directory that has it")
    train = prepared("cifar100", "train", data_dir=directory)
    test = prepared("cifar100", "test", data_dir=directory)
    assert (len(train), len(test), train.target) == (50_000, 10_000, Classes(100))
    assert train.fields["image"].shape == (32, 32, 3)
    assert np.bincount(train.labels).tolist() == [500] * 100
    assert np.bincount(test.labels).tolist() == [100] * 100
    means = test.inputs()["image"].mean((0, 1, 2)) / 255
    np.testing.assert_allclose(means, [0.5088, 0.4874, 0.4419], atol=5e-5)
