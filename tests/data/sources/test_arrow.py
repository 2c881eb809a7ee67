"""Arrow and Parquet files, as `datasets` writes them and as anybody does."""

import json

import numpy as np
import pytest

from kdjax import data
from kdjax.data import sources
from kdjax.types import BadInput
from tests.picture_files import encoded, pixels

pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
pq = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")

SIZE, NAMES = (9, 12), ["cat", "dog", "fox"]
_FEATURES = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": NAMES}}
SCHEMA = pa.schema(
    {"image": pa.struct({"bytes": pa.binary(), "path": pa.string()}), "label": pa.int64()},
    metadata={"huggingface": json.dumps({"info": {"features": _FEATURES}})},
)


def rows(seeds):
    return {
        "image": [{"bytes": encoded(pixels(i)), "path": f"{i}.png"} for i in seeds],
        "label": [i % 3 for i in seeds],
    }


def stream(path, columns, schema=SCHEMA, writer=None):
    """An arrow file in the format of streams, several batches long."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table(columns, schema=schema)
    with (writer or pa.ipc.new_stream)(str(path), table.schema) as out:
        out.write_table(table, max_chunksize=3)


def saved(root, seeds):
    """What `Dataset.save_to_disk` leaves, with a file beside that is none of it."""
    halves = [seeds[:4], seeds[4:]]
    files = [f"data-0000{i}-of-00002.arrow" for i in range(2)]
    for file, half in zip(files, halves, strict=True):
        stream(root / file, rows(half))
    stream(root / "cache-1234.arrow", rows([900]))
    (root / "dataset_info.json").write_text(json.dumps({"features": _FEATURES}))
    (root / "state.json").write_text(
        json.dumps({"_data_files": [{"filename": file} for file in files], "_split": None})
    )


def read(root, split="train", **how):
    return sources.arrow(split, root=str(root), **{"size": SIZE, **how})


def is_of(dataset, seeds, labels=3):
    """Whether it has these pictures, each with its label."""
    images = dataset.inputs()["image"]
    found = {image.tobytes(): label for image, label in zip(images, dataset.labels, strict=True)}
    return found == {pixels(i).tobytes(): i % labels for i in seeds}


def test_what_datasets_has_saved(tmp_path):
    saved(tmp_path / "d/train", range(9))
    saved(tmp_path / "d/test", range(20, 26))
    (tmp_path / "d/dataset_dict.json").write_text(json.dumps({"splits": ["train", "test"]}))
    train, test = read(tmp_path / "d"), read(tmp_path / "d", "test")
    assert train.target == test.target == data.Classes(3, tuple(NAMES))
    assert is_of(train, range(9))
    assert is_of(test, range(20, 26))
    alone = read(tmp_path / "d/train", test_share=0.3)
    assert len(alone) + len(read(tmp_path / "d/train", "test", test_share=0.3)) == 9
    (tmp_path / "d/train/data-00001-of-00002.arrow").unlink()
    with pytest.raises(BadInput, match=r"data-00001-of-00002.arrow .*is missing"):
        read(tmp_path / "d")


def test_one_that_datasets_itself_has_saved(tmp_path):
    datasets = pytest.importorskip("datasets", reason="datasets is not installed")
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=NAMES)}
    )
    made = datasets.Dataset.from_dict(rows(range(9)), features=features)
    datasets.DatasetDict({"train": made, "test": made.select(range(3))}).save_to_disk(
        tmp_path / "d"
    )
    made.to_parquet(tmp_path / "p/train-00000-of-00001.parquet")
    for name in ("d", "p"):
        found = read(tmp_path / name)
        assert found.target == data.Classes(3, tuple(NAMES))
        assert is_of(found, range(9))


@pytest.mark.parametrize("kind", ["stream", "file", "parquet"])
def test_files_of_each_split(tmp_path, kind):
    for split, seeds in {"train": range(9), "test": range(20, 26)}.items():
        if kind == "parquet":
            table = pa.table(rows(seeds), schema=SCHEMA)
            pq.write_table(table, tmp_path / f"{split}-00000-of-00001.parquet", row_group_size=4)
        else:
            writer = pa.ipc.new_file if kind == "file" else None
            stream(tmp_path / "data" / f"x-{split}.arrow", rows(seeds), writer=writer)
    assert is_of(read(tmp_path), range(9))
    assert is_of(read(tmp_path, "test"), range(20, 26))


def test_columns_of_bytes_and_of_arrays(tmp_path):
    plain = {"img": [encoded(pixels(i)) for i in range(6)], "kind": ["b", "a"] * 3}
    stream(tmp_path / "plain.arrow", plain, schema=None)
    found = read(tmp_path / "plain.arrow", image="img", label="kind")
    assert found.target == data.Classes(2, ("a", "b"))
    arrays = {"image": [pixels(i).tolist() for i in range(6)], "label": [i % 2 for i in range(6)]}
    as_uint8 = pa.schema({"image": pa.list_(pa.list_(pa.list_(pa.uint8()))), "label": pa.int8()})
    stream(tmp_path / "arrays.arrow", arrays, schema=as_uint8)
    assert is_of(read(tmp_path / "arrays.arrow"), range(6), labels=2)
    grey = {"image": [pixels(i, channels=1)[..., 0].tolist() for i in range(6)]}
    pq.write_table(pa.table(grey), tmp_path / "grey.parquet")
    found = read(tmp_path / "grey.parquet", label=None, channels=1)
    assert found.target == data.Unlabelled()
    wanted = {pixels(i, channels=1).tobytes() for i in range(6)}
    assert {image.tobytes() for image in found.inputs()["image"]} == wanted


@pytest.mark.parametrize("values", [[0.5, -1.0, None], [[0.5, 1.0], [2.0, 3.0], None]])
def test_numbers_to_be_predicted(tmp_path, values):
    columns = {"image": [encoded(pixels(i)) for i in range(3)], "label": values}
    pq.write_table(pa.table(columns), tmp_path / "train.parquet")
    found = read(tmp_path)
    assert found.target == data.Values(np.atleast_1d(values[0]).size)
    assert found.shown.sum() == 2


def test_rows_without_a_picture_are_named(tmp_path):
    columns = rows(range(4))
    columns["image"][1] = {"bytes": None, "path": "elsewhere.png"}
    columns["image"][3] = None
    stream(tmp_path / "train.arrow", columns)
    with pytest.raises(
        BadInput, match=r"row 1 of train.arrow .*a path and no bytes.*row 3 .*empty"
    ):
        read(tmp_path)


@pytest.mark.parametrize(
    ("how", "line"),
    [
        ({"image": "img"}, r"^image: .* has no column 'img': it has image, label"),
        ({"label": "labels"}, r"^label: .* has no column 'labels'.*did you mean label"),
        ({"classes": 2}, r"^classes: 2, and .* has 3"),
    ],
)
def test_fields_that_do_not_fit(tmp_path, how, line):
    stream(tmp_path / "train.arrow", rows(range(6)))
    with pytest.raises(BadInput, match=line) as caught:
        read(tmp_path, **how)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["train.arrow", "train.parquet"])
def test_a_file_that_is_cut_short(tmp_path, name):
    stream(tmp_path / "train.arrow", rows(range(6)), writer=pa.ipc.new_file)
    pq.write_table(pa.table(rows(range(6)), schema=SCHEMA), tmp_path / "train.parquet")
    path = tmp_path / name
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(BadInput, match=rf"^root: .*{name} cannot be read") as caught:
        read(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("state.json", '{"_data_files": [1]}'),
        ("state.json", '{"_data_files": 5}'),
        ("state.json", "[" * 100_000),
        ("dataset_dict.json", '{"splits": 5}'),
        ("dataset_dict.json", '{"splits": [1]}'),
    ],
)
def test_what_datasets_does_not_write(tmp_path, name, said):
    stream(tmp_path / "a.arrow", rows(range(6)))
    (tmp_path / name).write_text(said)
    with pytest.raises(BadInput, match=rf"^root: .*{name} .*; copy it again$") as caught:
        read(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "labels",
    [
        pa.array([["a", "b"]] * 6),
        pa.array([[("a", 1)]] * 6, pa.map_(pa.string(), pa.int32())),
        pa.array([2**60 + 1] * 6, pa.timestamp("ns")),
    ],
    ids=["lists of names", "maps", "times"],
)
def test_labels_that_are_neither_classes_nor_numbers(tmp_path, labels):
    pictures = [encoded(pixels(i)) for i in range(6)]
    pq.write_table(pa.table({"image": pictures, "label": labels}), tmp_path / "a.parquet")
    with pytest.raises(BadInput, match=r"^label: .*label of .* is .*; give classes"):
        read(tmp_path)
