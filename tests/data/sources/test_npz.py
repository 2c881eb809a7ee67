"""NumPy's own files, and what may be hidden in them."""

import io
import pickle
import zipfile

import numpy as np
import pytest

from kdjax import data
from kdjax.data import sources
from kdjax.types import BadInput

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(256, size=(20, 5, 6, 3), dtype=np.uint8)
LABELS = np.arange(20) % 3


def read(root, split="train", **how):
    return sources.npz(split, root=str(root), **how)


def is_of(dataset, images, labels):
    found = dataset.inputs()["image"]
    both = {image.tobytes(): label for image, label in zip(found, dataset.labels, strict=True)}
    return both == {image.tobytes(): label for image, label in zip(images, labels, strict=True)}


@pytest.mark.parametrize(
    "name",
    ["{0}_images {0}_labels", "x_{0} y_{0}", "{0}/image {0}/label", "images-{0} targets-{0}"],
)
@pytest.mark.parametrize("kind", ["npz", "npy", "an npz each"])
def test_arrays_are_called_in_many_ways(tmp_path, name, kind):
    if "/" in name:
        kind = "an npz each"
    parts = {"train": slice(0, 14), "test": slice(14, 20)}
    arrays = {}
    for split, rows in parts.items():
        image, label = name.format(split).split()
        arrays[split] = {image: IMAGES[rows], label: LABELS[rows, None]}
    if kind == "npz":
        np.savez(tmp_path / "all.npz", **arrays["train"], **arrays["test"])
    for split, own in arrays.items():
        if kind == "npy":
            for key, array in own.items():
                np.save(tmp_path / f"{key}.npy", array)
        if kind == "an npz each":
            inner = {key.split("/")[-1]: array for key, array in own.items()}
            np.savez_compressed(tmp_path / f"{split}.npz", **inner)
    train, test = read(tmp_path), read(tmp_path, "test")
    assert is_of(train, IMAGES[:14], LABELS[:14])
    assert is_of(test, IMAGES[14:], LABELS[14:])
    assert train.target == test.target == data.Classes(3)


def test_a_rule_of_the_content_cuts_a_test(tmp_path):
    np.savez(tmp_path / "a.npz", images=IMAGES, labels=LABELS)
    train, test = read(tmp_path, test_share=0.4), read(tmp_path, "test", test_share=0.4)
    assert {*train.ids} | {*test.ids} == {*range(20)}
    assert not {*train.ids} & {*test.ids}
    both = read(tmp_path, "train+test", test_share=0.4)
    assert is_of(both, IMAGES, LABELS)
    np.savez(
        tmp_path / "a.npz",
        images=np.concatenate([IMAGES, IMAGES[:3] // 2]),
        labels=[*LABELS, 0, 1, 2],
    )
    assert {*test.ids} <= {*read(tmp_path, "test", test_share=0.4).ids}
    with pytest.raises(BadInput, match=r"^data: split 'test': .* give test_share=0.1"):
        read(tmp_path, "test")


def test_images_of_a_npy_stay_on_the_disk(tmp_path):
    np.save(tmp_path / "x_train.npy", IMAGES[..., 0])
    np.save(tmp_path / "y_train.npy", np.array(["b", "a"] * 10))
    found = read(tmp_path)
    assert found.fields["image"].shape == (5, 6, 1)
    assert found.target == data.Classes(2, ("a", "b"))
    images = {image.tobytes() for image in found.inputs()["image"]}
    assert images == {image.tobytes() for image in IMAGES[..., 0]}
    with (tmp_path / "x_train.npy").open("r+b") as file:  # nobody should, but so it shows
        file.seek(-IMAGES[..., 0].size, 2)
        file.write(bytes(IMAGES[..., 0].size))
    assert not found.inputs()["image"].any()


def test_other_arrays_ids_and_values(tmp_path):
    x, y = RNG.normal(size=(20, 7)), RNG.normal(size=(20, 2))
    np.savez(tmp_path / "a.npz", features=x, y=y, ids=np.arange(20) + 5)
    found = read(tmp_path, image="features", target="values")
    assert found.target == data.Values(2)
    row = int(np.flatnonzero(found.ids == 9)[0])
    np.testing.assert_array_equal(found.inputs()["features"][row], x[4].astype(np.float32))
    np.testing.assert_array_equal(found.labels[row], y[4].astype(np.float32))
    assert read(tmp_path, image="features", label=None).target == data.Unlabelled()


def _npz(**members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in members.items():
            packed.writestr(f"{name}.npy", content)
    return buffer.getvalue()


def _npy(array, **options):
    buffer = io.BytesIO()
    np.save(buffer, array, **options)
    return buffer.getvalue()


def _declared(shape, content=b""):
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        buffer, {"descr": "|u1", "fortran_order": False, "shape": shape}
    )
    return buffer.getvalue() + content


class _Evil:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was loaded",))


WHOLE = _npy(IMAGES)
REFUSED = {
    "objects": (
        _npz(images=_npy(np.array([_Evil()]), allow_pickle=True)),
        "Python objects, a pickle",
    ),
    "a pickle": (
        _npz(images=pickle.dumps(_Evil(), protocol=4)),
        "is a pickle, which is never loaded",
    ),
    "text": (_npz(images=b"no array"), "is no array"),
    "no zip": (b"PK\x03\x04 and then nothing", "cannot be read"),
    "a bomb": (_npz(images=_declared((2**40,), bytes(100))), "declares 1099511627904 bytes"),
    "more than it says": (_npz(images=_declared((4,), bytes(5000))), "and its file is of 5128"),
    "a huge header": (_npz(images=b"\x93NUMPY\x02\x00\xff\xff\xff\x7f"), "has a header of"),
    "a damaged header": (_npz(images=b"\x93NUMPY\x01\x00\x05\x00nonse"), "is damaged"),
    "cut short": (_npz(images=WHOLE, labels=_npy(LABELS))[:-30], "cannot be read"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(tmp_path, name):
    content, said = REFUSED[name]
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(BadInput, match=f"^root: .*{said}") as caught:
        read(tmp_path)
    assert "\n" not in str(caught.value)


def test_what_is_larger_than_memory_is_not_unpacked(tmp_path):
    """Both the zip and the array's own header claim it."""
    size = sources.options.memory() // 2 + 2**20
    header = _declared((size, 1, 1))
    (tmp_path / "a.npz").write_bytes(_stored("images.npy", header, size + len(header)))
    with pytest.raises(BadInput, match=r"^root: .* GiB, more than half of the memory"):
        read(tmp_path)


def _stored(name, content, claimed):
    """A zip of one member that claims to be larger than it is."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as packed:
        info = zipfile.ZipInfo(name)
        info.compress_type = zipfile.ZIP_DEFLATED
        with packed.open(info, "w", force_zip64=True) as file:
            file.write(content)
        packed.infolist()[0].file_size = claimed
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("arrays", "how", "line"),
    [
        ({"stuff": IMAGES}, {}, r"^image: .* has no inputs: it has a.npz/stuff"),
        ({"images": IMAGES, "data": IMAGES}, {}, r"^image: .* has a.npz/images and a.npz/data"),
        ({"images": IMAGES, "labels": LABELS[:3]}, {}, r"^root: .* are not of one length"),
        ({"images": IMAGES, "labels": LABELS}, {"label": "lables"}, r"did you mean labels"),
        ({"images": IMAGES, "labels": LABELS}, {"classes": 2}, r"^classes: 2, and .* has 3"),
        ({"images": IMAGES, "labels": LABELS + 0.5}, {}, r"^label: 0.5 of .* is no class"),
    ],
)
def test_what_does_not_fit_is_one_line(tmp_path, arrays, how, line):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(BadInput, match=line) as caught:
        read(tmp_path, **how)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("label", [10**12, np.uint64(2**63 + 5)])
def test_a_label_that_would_make_more_classes_than_anybody_has(tmp_path, label):
    labels = LABELS.astype(np.uint64)
    labels[3] = label
    np.savez(tmp_path / "x.npz", images=IMAGES, labels=labels)
    with pytest.raises(BadInput, match=rf"^label: {label} of .* classes; mend it, or say how many"):
        read(tmp_path)


@pytest.mark.parametrize(("share", "part"), [(1e-9, "test"), (1 - 1e-9, "train")])
def test_a_rule_that_leaves_nothing(tmp_path, share, part):
    np.savez(tmp_path / "x.npz", images=IMAGES, labels=LABELS)
    with pytest.raises(BadInput, match=rf"^test_share: .* leaves none in {part}"):
        read(tmp_path, test_share=share)
