"""Tars of pictures beside their labels, whole and otherwise."""

import io
import json
import tarfile

import numpy as np
import pytest

from kdjax import data
from kdjax.data import sources
from kdjax.types import BadInput
from tests.picture_files import encoded, pixels

SIZE = (9, 12)


def pack(path, files, mode="w", **infos):
    """A tar of these files, in their order; `infos` are more members by name, as they are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as out:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            out.addfile(info, io.BytesIO(content))
        for info in infos.values():
            out.addfile(info)
    return path


def samples(seeds, label=lambda i: {"cls": str(i % 3).encode()}):
    files = {}
    for i in seeds:
        files[f"some/{i:04}.png"] = encoded(pixels(i))
        files |= {f"some/{i:04}.{ending}": content for ending, content in label(i).items()}
    return files


def read(root, split="train", **how):
    return sources.tar(split, root=str(root), **{"size": SIZE, **how})


def labels_of(dataset):
    images = dataset.inputs()["image"]
    return {
        image.tobytes(): label for image, label in zip(images, dataset.labels.tolist(), strict=True)
    }


def test_shards_of_each_split(tmp_path):
    pack(tmp_path / "x-train-000.tar", samples(range(5)))
    pack(tmp_path / "x-train-001.tar", samples(range(5, 9)))
    pack(tmp_path / "x-test-000.tar", samples(range(20, 24)))
    train, test = read(tmp_path), read(tmp_path, "test", names=["a", "b", "c"])
    assert labels_of(train) == {pixels(i).tobytes(): i % 3 for i in range(9)}
    assert labels_of(test) == {pixels(i).tobytes(): i % 3 for i in range(20, 24)}
    assert test.target == data.Classes(3, ("a", "b", "c"))
    assert len(np.unique(train.ids)) == 9


@pytest.mark.parametrize(
    ("label", "how"),
    [
        (lambda i: {"cls": b" %d\n" % (i % 3)}, {}),
        (lambda i: {"txt": b"abc"[i % 3 : i % 3 + 1]}, {"label": "txt"}),
        (lambda i: {"json": json.dumps({"label": i % 3, "x": [1]}).encode()}, {}),
        (lambda i: {"json": json.dumps({"kind": "abc"[i % 3]}).encode()}, {"label": "json.kind"}),
    ],
)
def test_labels_as_they_are_written(tmp_path, label, how):
    found = read(pack(tmp_path / "a.tar", samples(range(6), label)), **how)
    assert labels_of(found) == {pixels(i).tobytes(): i % 3 for i in range(6)}
    assert found.target.names in ((), ("a", "b", "c"))


def test_pictures_alone_are_unlabelled(tmp_path):
    path = pack(tmp_path / "a.tar", samples(range(6), lambda i: {}))
    assert read(path).target == data.Unlabelled()
    half = samples(range(6), lambda i: {"cls": b"1"} if i % 2 else {})
    assert read(pack(tmp_path / "b.tar", half)).shown.sum() == 3


def test_what_lies_where_is_kept_and_bound_to_the_tar(tmp_path):
    path = pack(tmp_path / "a.tar", samples(range(6)))
    first = read(path, kept=(kept := data.Kept(tmp_path / "kept")))
    kept.write()
    again = read(path, kept=data.Kept(tmp_path / "kept"))
    assert labels_of(again) == labels_of(first)
    assert again.fingerprint == first.fingerprint
    pack(tmp_path / "a.tar", samples(range(2, 9)))
    assert labels_of(read(path, kept=data.Kept(tmp_path / "kept"))).keys() == {
        pixels(i).tobytes() for i in range(2, 9)
    }


def _member(name, kind, **fields):
    info = tarfile.TarInfo(name)
    info.type = kind
    for field, value in fields.items():
        setattr(info, field, value)
    return info


REFUSED = {
    "climbs": (_member("../evil.png", tarfile.REGTYPE), "../evil.png, which climbs out of it"),
    "climbs inside": (_member("a/../../b.png", tarfile.REGTYPE), "which climbs out of it"),
    "absolute": (_member("/etc/evil.png", tarfile.REGTYPE), "/etc/evil.png, which climbs out"),
    "link": (_member("a.png", tarfile.SYMTYPE, linkname="/etc/passwd"), "a link to /etc/passwd"),
    "hard link": (_member("a.png", tarfile.LNKTYPE, linkname="b.png"), "a link to b.png"),
    "device": (_member("a.png", tarfile.CHRTYPE), "a.png, which is no plain file"),
    "fifo": (_member("a.png", tarfile.FIFOTYPE), "a.png, which is no plain file"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_business_there_is_refused(tmp_path, name):
    info, said = REFUSED[name]
    path = pack(tmp_path / "a.tar", samples(range(3)), info=info)
    with pytest.raises(BadInput, match=f"^root: .*{said}") as caught:
        read(path)
    assert "\n" not in str(caught.value)


def test_folders_and_hidden_files_are_passed_over(tmp_path):
    folder = _member("some", tarfile.DIRTYPE)
    path = pack(tmp_path / "a.tar", {**samples(range(3)), "some/._0001.png": b"x"}, folder=folder)
    assert len(read(path)) == 3


@pytest.mark.parametrize("mode", ["gz", "bz2", "xz"])
@pytest.mark.parametrize("name", ["a.tar", "a.tar.{}"])
def test_compressed_tars_are_refused(tmp_path, mode, name):
    path = pack(tmp_path / name.format(mode), samples(range(3)), f"w:{mode}")
    with pytest.raises(BadInput, match=r"is compressed by .* which has no random access; unpack"):
        read(path)


@pytest.mark.parametrize("cut", [100, 512, 700, 1500])
def test_a_tar_that_is_cut_short(tmp_path, cut):
    """Within its first header, its first picture, or a header behind that."""
    path = pack(tmp_path / "a.tar", samples(range(6)))
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(BadInput, match=r"^root: .*a.tar (is|has)") as caught:
        read(path)
    assert "\n" not in str(caught.value)


def test_a_header_that_is_damaged(tmp_path):
    path = pack(tmp_path / "a.tar", samples(range(6)))
    content = bytearray(path.read_bytes())
    at = content.index(b"some/0003.png")
    content[at : at + 20] = b"\xff" * 20
    path.write_bytes(bytes(content))
    with pytest.raises(BadInput, match=rf"a.tar is damaged or cut short at byte {at}"):
        read(path)


def test_what_could_be_meant_in_two_ways(tmp_path):
    two = {**samples(range(2)), "some/0000.seg.png": encoded(pixels(9))}
    path = pack(tmp_path / "a.tar", two)
    with pytest.raises(BadInput, match=r"^image: some/0000 .*has png, seg.png; .*image=png"):
        read(path)
    assert len(read(path, image="png")) == 2
    with pytest.raises(BadInput, match=r"^label: no example has 'clz': .*cls.*did you mean cls"):
        read(pack(tmp_path / "b.tar", samples(range(2))), label="clz")
    bad = samples(range(2), lambda i: {"json": b"{not json"})
    with pytest.raises(BadInput, match=r"^label: some/0000.json of c.tar cannot be read"):
        read(pack(tmp_path / "c.tar", bad))


def test_json_that_is_nested_without_end(tmp_path):
    pack(tmp_path / "a.tar", samples(range(2), lambda i: {"json": b"[" * 100_000}))
    with pytest.raises(BadInput, match=r"^label: .*0000\.json of a\.tar cannot be read"):
        read(tmp_path)
