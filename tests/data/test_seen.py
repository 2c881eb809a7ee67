"""What records say is kept, and counts for exactly the files that it was read from."""

import os

import numpy as np
import pytest
import tensorflow_datasets as tfds

from kdjax import files
from kdjax.data import Kept, prepared
from kdjax.data.seen import Seen
from kdjax.types import BadInput, StorageFailed
from tests.prepared_sets import encoded, write

IMAGES = np.random.default_rng(0).integers(256, size=(12, 4, 5, 3), dtype=np.uint8)
LABELS = np.arange(12) % 3
TEXTS = [b"a\0", b"", *(b"%d" % i for i in range(10))]
SHARDS = [range(5), range(5, 9), range(9, 12)]


def _write(root, *, labels=LABELS, texts=TEXTS):
    features = {
        "image": tfds.features.Image(shape=(4, 5, 3)),
        "label": tfds.features.ClassLabel(num_classes=3),
        "text": tfds.features.Text(),
        "number": tfds.features.Scalar(np.int64),
    }
    examples = [
        {"image": encoded(image), "label": label, "text": text, "number": 2**40 + row}
        for row, (image, label, text) in enumerate(zip(IMAGES, labels, texts, strict=True))
    ]
    splits = {"train": [[examples[row] for row in rows] for rows in SHARDS]}
    write(root / "tiny" / "1.0.0", features, splits)
    return root


class Counted(Kept):
    """Counts the splits whose records were read."""

    reads = 0

    def seen(self, what, paths, read):
        def counted():
            self.reads += 1
            return read()

        return super().seen(what, paths, counted)


def _start(root, folder, split="train", **keys):
    """A split as a process finds it that starts, and how often it has read the records."""
    kept = Counted(folder)
    found = prepared("tiny", split, data_dir=str(root), kept=kept, **keys)
    kept.write()
    return found, kept.reads


def _same(a, b):
    np.testing.assert_array_equal(a.ids, b.ids)
    np.testing.assert_array_equal(a.labels, b.labels)
    assert (a.ids.dtype, a.labels.dtype) == (b.ids.dtype, b.labels.dtype) == (np.uint32, np.int32)
    assert (a.name, a.target, a.fields["image"].shape) == (
        b.name,
        b.target,
        b.fields["image"].shape,
    )
    assert a.fingerprint == b.fingerprint
    rows = np.array([3, 0])
    assert a.hide_labels(rows).fingerprint == b.hide_labels(rows).fingerprint != a.fingerprint
    np.testing.assert_array_equal(a.inputs()["image"], b.inputs()["image"])


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return _write(tmp_path_factory.mktemp("sets"))


@pytest.mark.parametrize(
    ("split", "id_key"),
    [("train", "text"), ("train[10:]+train[:2]", "number"), ("train[3:10]", "id")],
)
def test_the_second_start_reads_no_record_and_finds_the_same(root, tmp_path, split, id_key):
    plain = prepared("tiny", split, data_dir=str(root), id_key=id_key)
    for reads in (1, 0):
        found, read = _start(root, tmp_path, split, id_key=id_key)
        assert read == reads
        _same(found, plain)
    # Each split and each feature has a file of its own.
    _, read = _start(root, tmp_path, "train[4:6]", id_key=id_key)
    assert (read, len(os.listdir(tmp_path))) == (1, 2)


def test_another_label_or_id_in_files_of_the_same_names_and_times_is_read(tmp_path):
    root = _write(tmp_path / "sets")
    changes = (
        {"labels": np.where(np.arange(12) == 7, 2, LABELS)},
        {"texts": [*TEXTS[:-1], b"x"]},
    )
    _start(root, tmp_path / "kept", id_key="text")
    for i, change in enumerate(changes):
        other = _write(tmp_path / str(i), **change)
        for path in (other / "tiny" / "1.0.0").iterdir():
            old = root / "tiny" / "1.0.0" / path.name
            times = old.stat()
            old.write_bytes(path.read_bytes())
            os.utime(old, ns=(times.st_atime_ns, times.st_mtime_ns))
        found, read = _start(root, tmp_path / "kept", id_key="text")
        assert read == 1
        _same(found, prepared("tiny", "train", data_dir=str(other), id_key="text"))


def test_a_set_that_is_refused_leaves_nothing(tmp_path):
    root = _write(tmp_path / "sets", texts=[b"a"] * 12)
    kept = Kept(tmp_path / "kept")
    with pytest.raises(BadInput, match="an id stands twice"):
        prepared("tiny", "train", data_dir=str(root), id_key="text", kept=kept)
    kept.write()
    assert not (tmp_path / "kept").exists()


def _seen(label=0):
    labels, ids = np.array([label, 1], np.int32), np.array([7, 8], np.uint32)
    return Seen((4, 5, 3), labels, ids, [b"x\0", b""], "images", "ids")


def _equal(a, b):
    np.testing.assert_array_equal(a.labels, b.labels)
    np.testing.assert_array_equal(a.ids, b.ids)
    assert (a.shape, a.own, a.images, a.own_ids) == (b.shape, b.own, b.images, b.own_ids)
    return True


@pytest.fixture
def shards(tmp_path):
    paths = [tmp_path / "a", tmp_path / "b"]
    for path in paths:
        path.write_bytes(path.name.encode() * 100)
    return paths


def _ask(folder, shards, seen, *, what="train", settled_seconds=2.0):
    """What is found of a split, and whether it was read."""
    kept = Counted(folder, settled_seconds=settled_seconds)
    found = kept.seen({"split": what}, shards, lambda: seen)
    kept.write()
    assert _equal(found, seen if kept.reads else _seen())
    return bool(kept.reads)


@pytest.mark.parametrize("own", [range(2), [2**40, -3], [b"", b"a\0\0"]])
def test_ids_come_back_as_they_stand_in_the_records(tmp_path, shards, own):
    seen = Seen((1, 2, 3), np.zeros(2, np.int32), np.ones(2, np.uint32), own, "images", "ids")
    for _ in range(2):
        kept = Kept(tmp_path / "kept")
        found = kept.seen({}, shards, lambda: seen)
        assert list(found.own) == list(own)
        assert [type(id) for id in found.own] == [type(id) for id in own]
        kept.write()


@pytest.mark.parametrize("settled_seconds", [2.0, -60.0], ids=["by hash", "by stat"])
def test_files_are_known_by_what_is_in_them(tmp_path, shards, settled_seconds):
    def is_read(seen=None, **more):
        seen = _seen() if seen is None else seen
        return _ask(tmp_path / "kept", shards, seen, settled_seconds=settled_seconds, **more)

    assert [is_read() for _ in range(3)] == [True, False, False]
    assert is_read(what="test")
    for path in shards:  # copied to another disk, without its times
        content = path.read_bytes()
        path.unlink()
        path.write_bytes(content)
        os.utime(path, (1, 1))
    assert not is_read()
    times = shards[1].stat()  # another content of the same size and time of writing
    shards[1].write_bytes(b"c" * 100)
    os.utime(shards[1], ns=(times.st_atime_ns, times.st_mtime_ns))
    assert is_read(_seen(label=3))
    shards[1].write_bytes(b"c" * 101)
    assert is_read()
    shards.append(shards[0])
    assert is_read()


def test_files_that_have_settled_are_not_hashed_again(tmp_path, shards, monkeypatch):
    hashed = []

    def sha256(path, real=files.sha256):
        hashed.append(path)
        return real(path)

    monkeypatch.setattr(files, "sha256", sha256)
    for settled_seconds, count in ((-60.0, 2), (-60.0, 0), (2.0, 2)):
        hashed.clear()
        _ask(tmp_path / "kept", shards, _seen(), settled_seconds=settled_seconds)
        assert len(hashed) == count


@pytest.mark.parametrize("fault", ["empty", "cut", "longer", "one bit"])
def test_what_is_damaged_is_made_again(tmp_path, shards, fault):
    assert _ask(tmp_path / "kept", shards, _seen())
    (file,) = (tmp_path / "kept").iterdir()
    content = file.read_bytes()
    flipped = bytearray(content)
    flipped[len(flipped) // 2] ^= 1
    damaged = {
        "empty": b"",
        "cut": content[:-1],
        "longer": content + b"\0",
        "one bit": bytes(flipped),
    }
    file.write_bytes(damaged[fault])
    assert _ask(tmp_path / "kept", shards, _seen())
    assert not _ask(tmp_path / "kept", shards, _seen())


def test_something_else_in_its_place_is_named(tmp_path, shards):
    assert _ask(tmp_path / "kept", shards, _seen())
    (file,) = (tmp_path / "kept").iterdir()
    file.unlink()
    file.mkdir()
    with pytest.raises(StorageFailed, match=f"{file}: a directory is where a file must be"):
        _ask(tmp_path / "kept", shards, _seen())


def test_nothing_is_written_before_it_is_asked_for(tmp_path, shards):
    Kept(tmp_path / "kept").seen({}, shards, _seen)
    assert not (tmp_path / "kept").exists()


def test_a_set_that_changes_while_it_is_read_is_not_kept(tmp_path, shards):
    """It was perhaps read as it was, and hashed as it is."""

    def changing():
        shards[0].write_bytes(b"c" * 100)
        return _seen()

    for read, left in ((changing, 0), (_seen, 1)):
        kept = Kept(tmp_path / "kept")
        kept.seen({}, shards, read)
        kept.write()
        assert len(list((tmp_path / "kept").glob("*"))) == left
