"""Folders as people have them."""

import os

import numpy as np
import pytest
from PIL import Image

from kdjax import data
from kdjax.data import sources
from kdjax.data.feed import stream_feeds
from kdjax.types import BadInput
from tests.picture_files import classes, encoded, pixels, write

SIZE = (9, 12)


def read(root, split="train", **how):
    return sources.folder(split, root=str(root), **{"size": SIZE, **how})


def by_id(dataset):
    """Pixels and labels by id."""
    images = dataset.inputs()["image"]
    rows = zip(dataset.ids.tolist(), images, dataset.labels.tolist(), strict=True)
    return {id: (image.tobytes(), label) for id, image, label in rows}


def refused(root, *parts, split="train", **how):
    with pytest.raises(BadInput) as caught:
        read(root, split, **how)
    said = str(caught.value)
    assert "\n" not in said
    for part in parts:
        assert part in said
    return said


def test_classes_are_folders_in_the_order_of_the_alphabet(tmp_path):
    found = read(classes(tmp_path, names=("dog", "cat")))
    assert found.target == data.Classes(2, ("cat", "dog"))
    wanted = {
        pixels(100 * (label == "cat") + i).tobytes(): label
        for label in ("cat", "dog")
        for i in range(8)
    }
    assert {image: found.target.names[label] for image, label in by_id(found).values()} == wanted
    assert found.fields["image"].shape == (*SIZE, 3)
    assert found.notes == ()


def test_whichever_cores_decode_the_rows_are_as_asked(tmp_path):
    found = read(classes(tmp_path, each=30), size=(5, 7), crop=0.9, interpolation="bicubic")
    rows = np.array([7, 3, 3, 59, 0] * 9)
    images, frame = (
        found.inputs()["image"],
        sources.Frame(size=(5, 7), crop=0.9, interpolation="bicubic"),
    )
    np.testing.assert_array_equal(found.read(rows)["image"], images[rows])
    contents = {
        sources.framed(path.read_bytes(), frame).tobytes() for path in tmp_path.rglob("*.png")
    }
    assert {image.tobytes() for image in images} == contents


def test_ids_are_of_path_and_content_alone(tmp_path):
    root = classes(tmp_path / "a", each=6)
    before = by_id(read(root, test_share=0.3)) | by_id(read(root, "test", test_share=0.3))
    assert len(before) == 12
    tests = set(read(root, "test", test_share=0.3).ids.tolist())
    write(root, {"cat/new.png": 77, "ant/0.png": 78})
    (root / "dog/5.png").unlink()
    after = by_id(read(root, test_share=0.3)) | by_id(read(root, "test", test_share=0.3))
    assert len(set(after) & set(before)) == 11
    assert {id: after[id][0] for id in set(after) & set(before)} == {
        id: before[id][0] for id in set(after) & set(before)
    }
    assert tests - set(read(root, "test", test_share=0.3).ids.tolist()) <= set(before) - set(after)
    write(root, {"cat/0.png": 79})  # another content under the name
    assert len(set(by_id(read(root))) & set(after)) == 12


def test_the_place_of_the_root_changes_nothing_and_content_does(tmp_path):
    one, two = (read(classes(tmp_path / name)) for name in ("a", "b"))
    assert one.fingerprint == two.fingerprint
    os.utime(tmp_path / "b/cat/0.png", (1, 1))
    assert read(tmp_path / "b").fingerprint == one.fingerprint
    for how in ({"size": (8, 12)}, {"crop": 0.5}, {"interpolation": "bicubic"}, {"draft": True}):
        assert read(tmp_path / "a", **how).fingerprint != one.fingerprint
    write(tmp_path / "b", {"cat/0.png": 99})
    assert read(tmp_path / "b").fingerprint != one.fingerprint
    assert read(tmp_path / "a").hide_labels(np.arange(0)).fingerprint != one.fingerprint


def test_a_rule_of_the_content_cuts_a_test(tmp_path):
    root = classes(tmp_path, each=60)
    train, test = (by_id(read(root, split, test_share=0.25)) for split in ("train", "test"))
    assert not train.keys() & test.keys()
    assert train | test == by_id(read(root))
    assert 15 <= len(test) <= 45  # of 120: within three standard deviations
    fewer = by_id(read(root, "test", test_share=0.1))
    assert fewer.items() < test.items()
    both = [by_id(read(root, f"train[{part}]", test_share=0.25)) for part in (":30%", "30%:")]
    assert both[0] | both[1] == train
    assert {label for _, label in both[0].values()} == {0, 1}  # not the first class alone
    assert by_id(read(root, "train+test", test_share=0.25)) == train | test
    refused(root, "split 'test'", "give test_share=0.1", split="test")
    refused(classes(tmp_path / "few", each=1), "test_share", "leaves none in test", test_share=1e-9)


def test_folders_of_splits(tmp_path):
    classes(tmp_path / "train", names=("b", "a", "c"))
    classes(tmp_path / "test", names=("a", "b"), begin=500)
    train, test = read(tmp_path), read(tmp_path, "test")
    assert train.target == test.target == data.Classes(3, ("a", "b", "c"))
    assert (len(train), len(test)) == (24, 16)
    assert set(test.labels.tolist()) == {0, 1}
    refused(tmp_path, "test_share", "test, train, which say it", test_share=0.5)
    refused(tmp_path, "split 'val'", "has test, train", split="val")
    write(tmp_path, {"extra/0.png": 1})
    refused(tmp_path, "root: ", "extra beside", "layout=together")
    assert len(read(tmp_path, layout="together", labels="last").target.names) == 4
    together = read(tmp_path, layout="together", labels="first")
    assert together.target.names == ("extra", "test", "train")


def test_a_class_may_be_called_train(tmp_path):
    assert read(classes(tmp_path, names=("bus", "train"))).target.names == ("bus", "train")


def test_pictures_without_labels(tmp_path):
    flat = write(tmp_path / "flat", {f"{i}.png": i for i in range(5)})
    found = read(flat)
    assert found.target == data.Unlabelled()
    assert not found.shown.any()
    assert read(flat, classes=10).target == data.Classes(10)
    classes(tmp_path / "half/test", names=("a", "b"))
    write(tmp_path / "half", {f"train/{i}.png": 900 + i for i in range(5)})
    train, test = read(tmp_path / "half"), read(tmp_path / "half", "test")
    assert train.target == test.target == data.Classes(2, ("a", "b"))
    assert not train.shown.any()
    assert test.shown.all()
    assert read(tmp_path / "half/test", labels="none").target == data.Unlabelled()


def test_one_folder_is_no_class(tmp_path):
    found = read(classes(tmp_path, names=("images",)))
    assert found.target == data.Unlabelled()
    (note,) = found.notes
    assert "labels=first" in note
    assert read(tmp_path, labels="first").target == data.Classes(1, ("images",))


def test_folders_within_folders(tmp_path):
    write(tmp_path, {"pets/cat/0.png": 0, "pets/dog/1.png": 1, "cars/bus/2.png": 2})
    refused(tmp_path, "labels: cars/bus/2.png", "a folder within a folder", "labels=first")
    assert read(tmp_path, labels="first").target.names == ("cars", "pets")
    assert read(tmp_path, labels="last").target.names == ("bus", "cat", "dog")


def test_a_picture_beside_the_classes(tmp_path):
    write(classes(tmp_path), {"stray.png": 900})
    refused(tmp_path, "labels: stray.png", "lies in no class", "labels=first")
    assert sorted(read(tmp_path, labels="first").labels.tolist())[:2] == [-1, 0]


def test_an_empty_class_is_named(tmp_path):
    (classes(tmp_path) / "empty/inner").mkdir(parents=True)
    refused(tmp_path, "root: ", f"{tmp_path}/empty has no pictures", "remove the folder")


def test_what_is_no_picture_is_left_out_and_names_may_be_odd(tmp_path):
    odd = [
        "a b.PNG",
        "ü ñ 日本.png",
        "semi;colon'\".png",
        "line\nbreak.png",
        "dot.dot.png",
        "-x.png",
    ]
    names = dict(zip(odd, range(50, 56), strict=True))
    write(tmp_path, {f"cat/{name}": seed for name, seed in names.items()})
    (tmp_path / "cat" / os.fsdecode(b"latin\xe9.png")).write_bytes(encoded(pixels(60)))
    junk = ["Thumbs.db", ".DS_Store", ".hidden.png", "notes.txt", "._x.png"]
    write(tmp_path, {f"cat/{name}": b"junk" for name in junk})
    write(tmp_path, {"__MACOSX/cat/0.png": b"junk", ".git/x.png": b"junk"})
    write(tmp_path, {f"dög/{i}.jpg": encoded(pixels(i), "JPEG") for i in range(3)})
    found = read(tmp_path)
    assert found.target.names == ("cat", "dög")
    assert len(found) == 10
    write(tmp_path, {"cat/line\nbreak2.png": b""})
    refused(tmp_path, r"'cat/line\nbreak2.png' (it is empty)")


def test_links_are_followed_but_not_in_circles(tmp_path):
    root = classes(tmp_path / "real")
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked/cat").symlink_to(root / "cat", target_is_directory=True)
    (tmp_path / "linked/dog").mkdir()
    (tmp_path / "linked/dog/one.png").symlink_to(root / "dog/3.png")
    assert len(read(tmp_path / "linked")) == 9
    (tmp_path / "linked/dog/gone.png").symlink_to(tmp_path / "nowhere.png")
    refused(tmp_path / "linked", "dog/gone.png (it is a link that leads nowhere)")
    (tmp_path / "linked/dog/up").symlink_to(tmp_path / "linked", target_is_directory=True)
    refused(tmp_path / "linked", "dog/up is a link in a circle", "remove the link")


BROKEN = {
    "cat/empty.png": b"",
    "cat/text.jpg": b"this is no picture",
    "dog/short.jpg": encoded(pixels(1, 60, 60), "JPEG")[:-300],
    "dog/photo.HEIC": b"another kind",
}


def test_all_that_is_broken_is_named_and_skipped_only_if_asked(tmp_path):
    write(classes(tmp_path), BROKEN)
    refused(tmp_path, "root: 4 pictures of", *BROKEN, "skip_broken=True", "convert it to PNG")
    found = read(tmp_path, skip_broken=True)
    assert len(found) == 16
    (note,) = found.notes
    assert note.startswith("skipped, 4 pictures of")
    assert all(name in note for name in BROKEN)
    write(tmp_path, {f"cat/z{i}.png": b"" for i in range(30)})
    assert ", and 14 more; " in refused(tmp_path, "34 pictures")
    # A header alone does not show that a file was cut short: it is named when it is read.
    only = write(tmp_path / "only", {"short.jpg": BROKEN["dog/short.jpg"], "whole.png": 3})
    with pytest.raises(BadInput, match=r"short.jpg.*its pixels are damaged"):
        read(only, check="header").inputs()


def test_only_the_splits_that_are_asked_for_must_be_whole(tmp_path):
    classes(tmp_path / "train")
    classes(tmp_path / "test", begin=500)
    write(tmp_path, {"test/cat/empty.png": b""})
    assert len(read(tmp_path)) == 16
    refused(tmp_path, "test/cat/empty.png", split="test")


def test_a_picture_that_is_gone_or_changed_in_the_midst_is_one_line(tmp_path):
    found = read(classes(tmp_path))
    (tmp_path / "cat/3.png").unlink()
    write(tmp_path, {"dog/3.png": b"now text"})
    lines = []
    for row in range(16):
        try:
            found.read(np.array([row]))
        except BadInput as error:
            lines.append(str(error))
    assert len(lines) == 2
    for name in ("cat/3.png", "dog/3.png"):
        assert any(name in line and "\n" not in line for line in lines)


def test_the_same_picture_twice_is_said(tmp_path):
    classes(tmp_path / "train")
    classes(tmp_path / "test", begin=500)
    write(tmp_path, {"test/dog/copy.png": 3, "train/cat/again.png": 5, "train/dog/torn.png": 2})
    notes = "\n".join(read(tmp_path).notes)
    assert "1 picture is in two splits" in notes
    assert "test/dog/copy.png" in notes
    assert "train/cat/3.png" in notes
    assert "1 picture is there twice of" in notes
    assert "train/cat/again.png" in notes
    assert "1 picture is there twice with different labels" in notes
    assert "train/dog/torn.png" in notes
    # By rule both are on one side.
    one = write(tmp_path / "one", {f"{i}{copy}.png": i for i in range(40) for copy in "ab"})
    assert not any("two splits" in note for note in read(one, test_share=0.5).notes)


def test_what_is_kept_of_a_folder_is_what_it_would_say(tmp_path):
    root = classes(tmp_path / "root")
    write(root, {"cat/broken.png": b""})
    folder = tmp_path / "kept"

    def start(split="train", **how):
        kept = data.Kept(folder, settled_seconds=-1.0)
        found = read(root, split, kept=kept, skip_broken=True, **how)
        kept.write()
        return found

    first = start()
    again = start()
    assert (again.fingerprint, again.notes) == (first.fingerprint, first.notes)
    np.testing.assert_array_equal(again.ids, first.ids)
    write(root, {"cat/new.png": 900})
    more = start()
    assert len(more) == 17
    assert set(first.ids.tolist()) < set(more.ids.tolist())
    (root / "cat/0.png").write_bytes(encoded(pixels(901)))
    assert start().fingerprint not in (more.fingerprint, first.fingerprint)
    for path in folder.iterdir():
        path.write_bytes(path.read_bytes()[:-1])
    assert len(start()) == 17


def test_a_feed_streams_what_is_resident(tmp_path):
    found = read(classes(tmp_path, each=10))
    whole = found.inputs()["image"]
    order = {
        "seed": 0,
        "batch": 4,
        "share": slice(None),
        "start": 0,
        "stop": 6,
        "dispatch_steps": 2,
    }
    row_of = {id: row for row, id in enumerate(found.ids.tolist())}
    for _, feed in stream_feeds(found, **order, threads=2):
        rows = np.vectorize(row_of.get)(feed["id"])
        np.testing.assert_array_equal(feed["inputs"]["image"], whole[rows])
        np.testing.assert_array_equal(feed["label"], found.labels[rows])


def test_thousands_of_small_files(tmp_path):
    rng = np.random.default_rng(0)
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
    for i in range(1000):
        image = Image.fromarray(rng.integers(256, size=(4, 4, 3), dtype=np.uint8))
        image.save(tmp_path / "ab"[i % 2] / f"{i}.bmp")
    found = read(tmp_path, size=(4, 4))
    assert len(np.unique(found.ids)) == 1000
    assert found.inputs()["image"].shape == (1000, 4, 4, 3)


@pytest.mark.parametrize(
    ("root", "said"),
    [
        ("nowhere", "is not there"),
        ("file.png", "is a file"),
        ("empty", "has no pictures"),
        ("gs://bucket/x", "root: gs://bucket/x"),
    ],
)
def test_roots_that_are_none(tmp_path, root, said):
    write(tmp_path, {"file.png": 0})
    (tmp_path / "empty").mkdir()
    refused(root if "://" in root else tmp_path / root, "root: ", said)


def test_a_size_is_asked_for(tmp_path):
    with pytest.raises(BadInput, match=r"^size: missing"):
        sources.folder("train", root=str(classes(tmp_path)))
    assert sources.folder("train", root=str(tmp_path), size=6).fields["image"].shape == (6, 6, 3)
