"""Tables of paths and labels."""

import numpy as np
import pytest

from kdjax import data
from kdjax.data import sources
from kdjax.data.sources.rows import csv_rows
from kdjax.types import BadInput
from tests.picture_files import pixels, write

SIZE = (9, 12)


@pytest.fixture
def root(tmp_path):
    return write(tmp_path, {f"pictures/{i}.png": i for i in range(12)})


def table(path, lines, header="path,label", **options):
    path.write_text("\n".join([header, *lines]) + "\n", **options)
    return path


def read(root, split="train", **how):
    return sources.csv(split, root=str(root), **{"size": SIZE, **how})


def labels_of(dataset):
    images = dataset.inputs()["image"]
    return {
        image.tobytes(): label for image, label in zip(images, dataset.labels.tolist(), strict=True)
    }


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_names_of_classes_whatever_is_between(root, delimiter, encoding):
    lines = [delimiter.join((f"pictures/{i}.png", "bän" if i % 2 else "ape")) for i in range(12)]
    table(root / "all.csv", lines, delimiter.join(("path", "label")), encoding=encoding)
    found = read(root)
    assert found.target == data.Classes(2, ("ape", "bän"))
    assert labels_of(found) == {pixels(i).tobytes(): i % 2 for i in range(12)}


def test_integers_and_names_in_an_order(root):
    table(root / "a.csv", [f"pictures/{i}.png,{i % 3}" for i in range(12)])
    assert read(root).target == data.Classes(3)
    assert read(root, names=["c", "b", "a"]).target == data.Classes(3, ("c", "b", "a"))
    assert read(root, classes=7).target == data.Classes(7)
    table(root / "a.csv", [f"pictures/{i}.png,{'ab'[i % 2]}" for i in range(12)])
    found = read(root, names=["b", "a"])
    assert labels_of(found)[pixels(0).tobytes()] == 1
    with pytest.raises(BadInput, match=r"^label: 'b' of .* is no class"):
        read(root, names=["a", "c"])


def test_names_that_python_alone_takes_for_integers(root):
    table(root / "a.csv", [f"pictures/{i}.png,1_{i % 3}" for i in range(12)])
    assert read(root).target == data.Classes(3, ("1_0", "1_1", "1_2"))


def test_a_split_is_of_a_file_or_of_a_column(root):
    for split, rows in (("train", range(9)), ("test", range(9, 12))):
        table(root / f"{split}.csv", [f"pictures/{i}.png,{i % 2}" for i in rows])
    assert labels_of(read(root, "test")) == {pixels(i).tobytes(): i % 2 for i in range(9, 12)}
    assert len(read(root)) == 9
    lines = [f"pictures/{i}.png,{i % 2},{'test' if i > 8 else 'train'}" for i in range(12)]
    one = table(root / "one.txt.csv", lines, "path,label,part")
    assert len(read(one, "test", split_column="part")) == 3
    assert len(read(one, "train", split_column="part")) == 9


def test_empty_labels_and_none(root):
    table(root / "a.csv", [f"pictures/{i}.png,{'ab'[i % 2] if i < 6 else ''}" for i in range(12)])
    found = read(root)
    assert found.shown.sum() == 6
    assert read(root, label=None).target == data.Unlabelled()
    table(root / "a.csv", [f"pictures/{i}.png" for i in range(12)], "path")
    assert read(root, label=None).target == data.Unlabelled()


def test_numbers_to_be_predicted(root):
    lines = [f'"pictures/{i}.png",{i / 2},{-i if i else ""}' for i in range(12)]
    table(root / "a.csv", lines, "path,x,y")
    found = read(root, label="x", target="values")
    assert found.target == data.Values(1)
    assert {p: x for p, (x,) in labels_of(found).items()} == {
        pixels(i).tobytes(): i / 2 for i in range(12)
    }
    with pytest.raises(BadInput, match=r"line 2 of a.csv has 1 of 2 numbers"):
        read(root, label=["x", "y"], target="values")  # half a label is none


CLIMBS = [
    "../out.png",
    "/etc/passwd",
    "a/../../out.png",
    "..\\out.png",
    "C:\\out.png",
    "pictures/../../x.png",
]


@pytest.mark.parametrize("path", CLIMBS)
def test_a_path_that_climbs_out_is_refused(root, path):
    write(root.parent, {"out.png": 99})
    table(root / "a.csv", ["pictures/0.png,1", f"{path},1"])
    with pytest.raises(BadInput, match=r"^root: line 3 of a.csv has .* climbs out") as caught:
        read(root)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "how", "line"),
    [
        ("path,label\nx.png\n", {}, r"^root: line 2 of a.csv has not as many columns"),
        ("path,label\nx.png,1,2\n", {}, r"^root: line 2 of a.csv has not as many columns"),
        ("path,label\n,1\n", {}, r"^root: line 2 of a.csv has no path"),
        ("path,label\na.png,1\na.png,2\n", {}, r"^root: a.png stands twice: line 2 .*line 3"),
        ("path,label\na.png,1\n./a.png,2\n", {}, r"^root: a.png stands twice"),
        ("file,label\na.png,1\n", {}, r"^image: .* has no column 'path': .* file, label"),
        ("path,labels\na.png,1\n", {}, r"^label: .* has no column 'label'.*did you mean labels"),
        (
            "path,label\na.png,x\n",
            {"target": "values"},
            r"^label: 'x' in label is no number .line 2",
        ),
        (
            "path,label\na.png,1\n",
            {},
            r"^root: 1 picture .*a.png .line 2 of a.csv. .it cannot be read",
        ),
        ("path,label\n", {}, r"^root: .* has no pictures"),
        ("", {}, r"^image: .* has no column 'path'"),
        (
            b"path,label\n\xff\xfe.png,1\n",
            {},
            r"^root: .* cannot be read .*save it as CSV in UTF-8",
        ),
        ('path,label\n"a.png,1\n', {}, r"^root: .* cannot be read"),
        ("path,label\na.png,-2\n", {}, r"label -2 of .* is out of range"),
    ],
)
def test_tables_that_are_none(tmp_path, text, how, line):
    path = tmp_path / "a.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(BadInput, match=line) as caught:
        read(tmp_path, **how)
    assert "\n" not in str(caught.value)


def test_ids_do_not_depend_on_the_order_of_lines(root):
    lines = [f"pictures/{i}.png,{i % 2}" for i in range(12)]
    table(root / "a.csv", lines)
    before = read(root)
    table(root / "a.csv", lines[::-1])
    after = read(root)
    np.testing.assert_array_equal(before.ids, after.ids)
    assert before.fingerprint == after.fingerprint


@pytest.mark.parametrize("delimiter", [",", ";", "|", "\t"])
def test_rows_within_one_quotation_are_no_label(delimiter, tmp_path):
    """A quotation mark that nobody closes takes all up to the next one; a text may have ends of lines."""
    path, asked = tmp_path / "a.csv", {"image": ["path"], "label": ["label"], "text": ["text"]}
    rows = ['a.png,"cat,x', 'b.png,dog",y', "c.png,cat,z"]
    path.write_text("\n".join(["path,label,text", *rows]).replace(",", delimiter) + "\n")
    with pytest.raises(BadInput, match=r"lines 2 to 3 of a\.csv are one cell "):
        csv_rows("a.csv", str(path), asked, texts=["text"])
    path.write_text('path,label,text\na.png,cat,"x\ny"\n'.replace(",", delimiter))
    (row,) = csv_rows("a.csv", str(path), asked, texts=["text"])
    assert row.cells["text"] == "x\ny"
    with pytest.raises(BadInput, match="are one cell of 'text'"):
        csv_rows("a.csv", str(path), asked)


def test_names_that_look_alike_are_not_two_classes(root):
    path = table(root / "a.csv", ["pictures/0.png,\u00e9", "pictures/1.png,e\u0301"])
    with pytest.raises(BadInput, match=r"^label: 'e\\u0301' in label looks like '\\xe9' \(line 3"):
        read(path)
