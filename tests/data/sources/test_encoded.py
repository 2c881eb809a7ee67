"""A source of one's own: whatever gives encoded pictures by row."""

import dataclasses
import hashlib

import numpy as np
import pytest

from kdjax import data
from kdjax.data import sources
from kdjax.types import BadInput
from tests.picture_files import encoded, pixels

FRAME = sources.Frame(size=(9, 12))


@dataclasses.dataclass
class Shelf:
    """Pictures in a dict, which counts who asks for them."""

    files: dict[str, bytes]
    read: list[str] = dataclasses.field(default_factory=list)

    @property
    def source(self):
        names = sorted(self.files)

        def content(row):
            self.read.append(names[row])
            return self.files[names[row]]

        # A shelf has no clock: what is on it has been there for long.
        stamps = [[len(self.files[n]), 1, 1, sum(self.files[n])] for n in names]
        return sources.Encoded(
            name="shelf",
            keys=[name.encode() for name in names],
            shown=names.__getitem__,
            content=content,
            labels=np.array([i % 2 for i in range(len(names))], np.int32),
            target=data.Classes(2),
            stamps=np.asarray(stamps, np.int64).reshape(-1, 4),
        )


def shelf(n=12):
    return Shelf({f"{i:02}": encoded(pixels(i)) for i in range(n)})


def test_it_is_a_dataset_of_what_it_gives():
    one = shelf()
    found = sources.from_encoded(one.source, "train", frame=FRAME)
    assert len(one.read) == 12
    images = {image.tobytes() for image in found.inputs()["image"]}
    assert images == {pixels(i).tobytes() for i in range(12)}
    assert found.name == "shelf train"


def test_a_start_reads_what_is_new_and_no_more(tmp_path):
    one = shelf()

    def start(split="train", **how):
        kept, one.read = data.Kept(tmp_path), []
        found = sources.from_encoded(one.source, split, frame=FRAME, kept=kept, **how)
        kept.write()
        return found, sorted(one.read)

    first, read = start(check="header")
    assert read == sorted(one.files)
    assert start(check="header")[1] == []
    assert start()[1] == read  # their pixels have not been looked at
    again, read = start()
    assert read == []
    assert again.fingerprint == first.fingerprint
    one.files |= {"99": encoded(pixels(99)), "03": encoded(pixels(100)), "04": b""}
    with pytest.raises(BadInput, match=r"1 picture of shelf cannot be used: 04 \(it is empty\)"):
        start()
    found, read = start(skip_broken=True)
    assert read == ["03", "04", "99"]  # what was refused has kept nothing
    assert len(found) == 12
    found, read = start(skip_broken=True)
    assert (len(found), read) == (12, [])
    assert found.notes == ("skipped, 1 picture of shelf cannot be used: 04 (it is empty)",)
    del one.files["04"]
    assert start()[1] == []
    for path in tmp_path.iterdir():
        path.write_bytes(path.read_bytes()[:-1])
    assert start()[1] == sorted(one.files)


def test_what_has_just_been_written_is_read_again(tmp_path):
    one, kept = shelf(3), data.Kept(tmp_path, settled_seconds=3e9)
    for _ in range(2):
        one.read = []
        sources.from_encoded(one.source, "train", frame=FRAME, kept=kept)
        assert len(one.read) == 3


def test_only_what_a_split_has_must_be_whole():
    """Which side a picture is on is said by the first 64 bits of the hash of its content."""
    one, share = shelf(), 0.4
    broken = {f"b{i}": f"broken {i}".encode() for i in range(8)}
    one.files |= broken
    low = {
        name
        for name, content in broken.items()
        if int.from_bytes(hashlib.sha256(content).digest()[:8], "big") < share * 2**64
    }
    assert 0 < len(low) < 8
    for split, own in (("test", low), ("train", broken.keys() - low)):
        with pytest.raises(BadInput) as caught:
            sources.from_encoded(one.source, split, frame=FRAME, test_share=share)
        assert {name for name in broken if f"{name} (" in str(caught.value)} == own


@pytest.mark.parametrize("share", [-0.1, 1.0])
def test_shares_that_are_none(share):
    with pytest.raises(BadInput, match=r"^test_share: .* is not in \[0, 1\)"):
        sources.from_encoded(shelf().source, "train", frame=FRAME, test_share=share)


@pytest.mark.parametrize(
    ("split", "said"),
    [
        ("trian", "has train, test"),
        ("train[:x%]", "train"),
        ("train+train", "twice"),
        ("train[:0%]", "has no examples"),
    ],
)
def test_splits_that_are_none(split, said):
    with pytest.raises(BadInput, match=f"^data: split .*{said}") as caught:
        sources.from_encoded(shelf().source, split, frame=FRAME, test_share=0.4)
    assert "\n" not in str(caught.value)


def test_pictures_that_cannot_be_read_are_named_with_either_split():
    """A rule that cuts by content knows nothing of them."""
    one = shelf()

    def content(row):
        raise FileNotFoundError(2, "No such file or directory")

    source = dataclasses.replace(one.source, content=content)
    for split in ("train", "test"):
        with pytest.raises(BadInput, match=r"^root: 12 pictures of shelf cannot be used: 00 \(it"):
            sources.from_encoded(source, split, frame=FRAME, test_share=0.5)


@pytest.mark.parametrize(("share", "part"), [(1e-9, "test"), (1 - 1e-9, "train")])
@pytest.mark.parametrize("split", ["train", "test"])
def test_a_rule_that_leaves_nothing(share, part, split):
    line = rf"^test_share: .* of the 12 examples of shelf leaves none in {part}; give more"
    with pytest.raises(BadInput, match=line):
        sources.from_encoded(shelf().source, split, frame=FRAME, test_share=share)
