"""Arrow and Parquet files with pictures, such as those that Hugging Face's `datasets` writes."""

import io
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Unpack

import numpy as np
from etils import epy
from jaxtyping import Shaped
from PIL import Image

from kdjax.data.dataset import Dataset
from kdjax.data.pictures import Unfit
from kdjax.data.seen import stat
from kdjax.data.sources import splits
from kdjax.data.sources.encoded import Encoded
from kdjax.data.sources.options import (
    How,
    classes_of,
    dataset_of,
    files_below,
    local,
    memory,
    shown,
)
from kdjax.data.sources.rows import Asked, check_columns
from kdjax.data.targets import Target, Values
from kdjax.files import from_json
from kdjax.types import BadInput

with epy.lazy_imports():  # an extra
    import pyarrow as pa
    import pyarrow.parquet as pq

_SUFFIXES = (".arrow", ".parquet")
_HUGGING_FACE = b"huggingface"


def arrow(
    split: str,
    *,
    root: str | os.PathLike[str],
    image: str = "image",
    label: str | None = "label",
    classes: int | None = None,
    **how: Unpack[How],
) -> Dataset:
    """A split of `*.arrow` or `*.parquet` files, read through pyarrow alone and without a network.

    A directory that `save_to_disk` of `datasets` has written says by itself which files are of which
    split; of others a split is what `train`, `test` or the like in the file's path names. Arrow files
    are mapped; what Parquet files have of pictures is read into memory.

    Args:
      split: as TFDS writes it.
      root: the directory, or one file.
      image: the column of the pictures: their files' bytes, alone or as `{bytes, path}`, or uint8
        arrays [height, width] or [height, width, channel].
      label: the column of the labels: integers (names come from the schema, where it has a
        `ClassLabel`), names of classes, or numbers to be predicted, single ones or lists; None for none.
      classes: how many there are, where the schema does not say it.
      **how: see `How`; `size` is needed.

    Raises:
      BadInput: pyarrow is not installed, a file is damaged, a column is not there or is no such, or see
        `from_encoded`.
    """
    path = local(root)
    require()
    saved = saved_by_datasets(path)
    files = files_below(path, _SUFFIXES, kind="arrow or parquet files")
    if saved is not None:
        inside = {name for names in saved.values() for name in names}
        if missing := sorted(inside - {*files}):
            raise BadInput(
                "root", f"{shown(missing[0])} of {shown(path)} is missing", "copy it again"
            )
        files = {name: file for name, file in files.items() if name in inside}
    by_split = saved if saved is not None else splits.of_paths(files, what=shown(path))
    asked = {"image": [image], "label": [] if label is None else [label]}
    tables = {name: table_of(file, asked) for name, file in files.items()}
    whole = _Whole.of(tables, image)
    labels, target = _labels(tables, label, classes=classes, name=shown(path), root=path)
    begin = dict(zip(tables, np.cumsum([0, *(t.num_rows for t in tables.values())]), strict=False))

    def rows_of(names: Sequence[str]) -> np.ndarray:
        return np.concatenate([begin[n] + np.arange(tables[n].num_rows) for n in names])

    encoded = Encoded(
        name=shown(path),
        keys=[f"{name}#{row}".encode() for name, t in tables.items() for row in range(t.num_rows)],
        shown=whole.shown,
        content=whole.content,
        labels=labels,
        target=target,
        stamps=np.concatenate(
            [
                np.tile(np.asarray(stat(files[n]), np.int64), (t.num_rows, 1))
                for n, t in tables.items()
            ]
        ),
        splits=None
        if by_split is None
        else {name: rows_of(names) for name, names in by_split.items()},
    )
    return dataset_of(encoded, split, what={"arrow": path, "image": image}, **how)


def require() -> None:
    """Raises `BadInput` where pyarrow is not installed."""
    try:
        pa.__version__  # noqa: B018
    except ImportError:
        raise BadInput("kind", "pyarrow is not installed", "pip install 'kdjax[arrow]'") from None


class _Whole(NamedTuple):
    """All rows of several tables.

    Attributes:
      names: of the files.
      columns: of the pictures.
      ends: rows up to the end of each.
    """

    names: list[str]
    columns: list[Any]
    ends: list[int]

    @classmethod
    def of(cls, tables: Mapping[str, Any], image: str) -> "_Whole":
        """Those of these files."""
        columns = [table.column(image) for table in tables.values()]
        ends = np.cumsum([len(column) for column in columns]).tolist()
        return cls(list(tables), columns, ends)

    def at(self, row: int) -> tuple[int, int]:
        """The file of a row, and the row in it."""
        file = int(np.searchsorted(self.ends, row, side="right"))
        return file, row - (self.ends[file - 1] if file else 0)

    def shown(self, row: int) -> str:
        """Where a row is."""
        file, inner = self.at(row)
        return f"row {inner} of {shown(self.names[file])}"

    def content(self, row: int) -> bytes:
        """The bytes of a picture's file; of an array, those of a PNG."""
        file, inner = self.at(row)
        value = self.columns[file][inner].as_py()
        if isinstance(value, dict):
            if value.get("bytes") is None:
                raise Unfit("it has a path and no bytes; save it with its files embedded")
            value = value["bytes"]
        if value is None:
            raise Unfit("it is empty")
        return value if isinstance(value, bytes) else _png(value)


def _png(value: Any) -> bytes:
    """A picture of an array, as it is."""
    try:
        array = np.asarray(value)
    except ValueError:
        raise Unfit("it is no array, its rows differ in length") from None
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    whole = array.dtype.kind in "iu" and array.size and array.min() >= 0 and array.max() <= 255
    if not whole or array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)):
        raise Unfit(
            f"it is {array.dtype}{list(array.shape)}; pictures are [height, width, channel] of 0 to 255"
        )
    buffer = io.BytesIO()
    Image.fromarray(array.astype(np.uint8)).save(buffer, "PNG", compress_level=0)
    return buffer.getvalue()


def saved_by_datasets(root: str) -> dict[str, list[str]] | None:
    """The files of each split of what `save_to_disk` has written; None where it has not."""
    if os.path.isfile(os.path.join(root, "dataset_dict.json")):
        names = _json(os.path.join(root, "dataset_dict.json")).get("splits", [])
        if not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
            raise _strange(os.path.join(root, "dataset_dict.json"))
        return {
            name: [f"{name}/{file}" for file in _data_files(os.path.join(root, name))]
            for name in names
        }
    if os.path.isfile(os.path.join(root, "state.json")):
        return {"train": _data_files(root)}
    return None


def _data_files(folder: str) -> list[str]:
    state = _json(os.path.join(folder, "state.json"))
    files = state.get("_data_files") or []
    if not (isinstance(files, list) and all(isinstance(one, dict) for one in files)):
        raise _strange(os.path.join(folder, "state.json"))
    if state.get("_indices_data_files"):
        raise BadInput("root", f"{shown(folder)} is read through indices", "save_to_disk it again")
    return [str(one.get("filename")) for one in files]


def _json(path: str) -> Mapping[str, Any]:
    try:
        with open(path, encoding="utf-8") as file:
            found = from_json(file.read())
    except (OSError, ValueError) as error:
        raise BadInput("root", f"{shown(path)} cannot be read ({error})", "copy it again") from None
    if not isinstance(found, dict):
        raise _strange(path)
    return found


def _strange(path: str) -> BadInput:
    return BadInput("root", f"{shown(path)} is not what datasets writes", "copy it again")


def table_of(path: str, asked: Asked) -> Any:
    """Some columns of a file: mapped, of a Parquet file in memory.

    Raises:
      BadInput: it is damaged, has no such column, or is larger than memory bears.
    """
    try:
        if path.lower().endswith(".parquet"):
            return _parquet(path, asked)
        with pa.memory_map(path) as mapped:
            magic = mapped.read(6)
            mapped.seek(0)
            open_ = pa.ipc.open_file if magic == b"ARROW1" else pa.ipc.open_stream
            with open_(mapped) as reader:
                check_columns(asked, reader.schema.names, shown(path))
                return reader.read_all().select(_columns(asked))
    except (pa.ArrowException, OSError) as error:
        said = " ".join(str(error).split())
        raise BadInput("root", f"{shown(path)} cannot be read ({said})", "copy it again") from None


def _parquet(path: str, asked: Asked) -> Any:
    columns = _columns(asked)
    with pq.ParquetFile(path) as file:
        check_columns(asked, file.schema_arrow.names, shown(path))
        said = file.metadata
        size = 0
        for group in range(said.num_row_groups):
            for i in range(said.num_columns):
                column = said.row_group(group).column(i)
                if column.path_in_schema.split(".")[0] in columns:
                    size += column.total_uncompressed_size
        if size > memory() // 2:
            raise BadInput(
                "root",
                f"{shown(path)} has {size / 2**30:.1f} GiB to be read, more than half of the memory",
                "save it as arrow files, which are read where they lie",
            )
        return file.read(columns=columns)


def _columns(asked: Asked) -> list[str]:
    return [column for columns in asked.values() for column in columns]


def _labels(
    tables: Mapping[str, Any], label: str | None, *, classes: int | None, name: str, root: str
) -> tuple[Shaped[np.ndarray, "n ..."], Target]:
    """The labels of all rows, and what they are of."""
    rows = sum(table.num_rows for table in tables.values())
    if label is None:
        return classes_of([None] * rows, classes=classes, names=None, name=name)
    try:
        values = [one for table in tables.values() for one in table.column(label).to_pylist()]
    except ValueError as error:  # a time that Python's do not hold
        said = " ".join(str(error).split())[:80]
        raise BadInput("label", f"{label} of {name} is no class ({said})", "give classes") from None
    first = next((one for one in values if one is not None), None)
    if isinstance(first, float | list):
        dim = len(first) if isinstance(first, list) else 1
        given = [[np.nan] * dim if one is None else np.atleast_1d(one).tolist() for one in values]
        if any(len(one) != dim for one in given):
            raise BadInput("label", f"{label} of {name} has lists of several lengths")
        try:
            numbers = np.asarray(given, np.float64)
        except (ValueError, TypeError):
            fault = f"{first!r:.60} in {label} of {name} is neither a class nor a list of numbers"
            raise BadInput("label", fault, "give classes, or numbers") from None
        return Values(dim).read(numbers, n=rows, name=name), Values(dim)
    schema = next(iter(tables.values())).schema
    return classes_of(values, classes=classes, names=names_of(schema, label), name=name)


def names_of(schema: Any, label: str) -> list[str] | None:
    """The names of a `ClassLabel`, as `datasets` notes them in the schema."""
    said = (schema.metadata or {}).get(_HUGGING_FACE, b"")
    try:
        feature = from_json(said)["info"]["features"][label]
        return [str(name) for name in feature["names"]]
    except (TypeError, ValueError, KeyError):  # another's, or a label of another kind
        return None
