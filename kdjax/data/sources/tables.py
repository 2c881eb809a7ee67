"""A table of paths of pictures and their labels, in text."""

import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, Unpack

import numpy as np

from kdjax.data.dataset import Dataset
from kdjax.data.seen import stat
from kdjax.data.sources.encoded import Encoded
from kdjax.data.sources.options import How, classes_of, dataset_of, files_below, local, shown
from kdjax.data.sources.rows import Row, check_names, csv_rows, splits_of, values_of
from kdjax.types import BadInput


def table(
    split: str,
    *,
    root: str | os.PathLike[str],
    image: str = "path",
    label: str | Sequence[str] | None = "label",
    target: Literal["classes", "values"] = "classes",
    split_column: str | None = None,
    names: Sequence[str] | None = None,
    classes: int | None = None,
    **how: Unpack[How],
) -> Dataset:
    """A split of the pictures that CSV files name, a line each, under a line with the names of columns.

    Paths are relative to the file that names them, and stay below its folder. Columns are parted by
    comma, semicolon, tab or bar, see `kdjax.data.sources.rows`. A split is what `train`, `test` or
    the like in the file's name says, or its `split_column`.

    Args:
      split: as TFDS writes it.
      root: a CSV file, or a directory with some.
      image: the column of the paths.
      label: the column of the labels; empty where there is none. Several columns where `target` is
        `values`; None for none.
      target: labels are `classes` (their names, or integers), or `values`, numbers to be predicted.
      split_column: that names the split of each line.
      names: of the classes in their order, where labels are integers or the order is not the alphabet's.
      classes: how many there are; one more than the largest label by default.
      **how: see `How`; `size` is needed.

    Raises:
      BadInput: a file cannot be read, a column is not there, a path climbs out or stands twice, or see
        `from_encoded`.
    """
    path = local(root)
    if target not in ("classes", "values"):
        raise BadInput("target", f"{target!r} is not one of classes, values")
    columns = [] if label is None else [label] if isinstance(label, str) else [*label]
    if target == "classes" and len(columns) > 1:
        raise BadInput("label", f"{len(columns)} columns, and a class is in one", "give one")
    files = files_below(path, (".csv", ".tsv"), kind="CSV files")
    asked = {
        "image": [image],
        "label": columns,
        "split_column": [split_column] if split_column else [],
    }
    lines = [
        _line(row, file, image)
        for name, file in files.items()
        for row in csv_rows(name, file, asked)
    ]
    _check_once(lines)
    if target == "values":
        labels, asks = values_of(lines, columns, name=shown(path))
    else:
        for column in columns:
            check_names(lines, column, names=names)
        values = [line.cells[columns[0]] if columns else None for line in lines]
        labels, asks = classes_of(values, classes=classes, names=names, name=shown(path))

    def content(row: int) -> bytes:
        with open(lines[row].file, "rb") as opened:
            return opened.read()

    encoded = Encoded(
        name=shown(path),
        keys=[os.fsencode(line.key) for line in lines],
        shown=lambda row: f"{shown(lines[row].key)} ({lines[row].where})",
        content=content,
        labels=labels,
        target=asks,
        stamps=np.asarray([_stamp(line.file) for line in lines], np.int64).reshape(-1, 4),
        splits=splits_of(lines, files, split_column, name=shown(path)),
    )
    return dataset_of(encoded, split, what={"table": path}, **how)


class _Line(NamedTuple):
    """A line of a table.

    Attributes:
      table: the path of its file, relative to the root.
      where: it stands, for messages.
      cells: by column.
      file: the picture.
      key: its path relative to the folder of the table.
    """

    table: str
    where: str
    cells: Mapping[str, Any]
    file: str
    key: str


def _line(row: Row, path: str, image: str) -> _Line:
    """A line of a table.

    Args:
      row: as it stands there.
      path: of the table.
      image: the column of the paths.

    Raises:
      BadInput: its path is none.
    """
    key = inside(row.cells[image], row.where)
    return _Line(*row, os.path.join(os.path.dirname(path), key), key)


def inside(text: str, where: str) -> str:
    """A path as it is written, which stays below the folder that it is relative to."""
    path = os.path.normpath(text.strip().replace("\\", "/"))
    if not text.strip() or "\0" in text:
        raise BadInput("root", f"{where} has no path", "mend the line")
    if os.path.isabs(path) or path.split("/")[0] == ".." or path[1:2] == ":":
        raise BadInput(
            "root",
            f"{where} has {shown(text)}, which climbs out of the folder of the table",
            "write paths relative to it",
        )
    return path


def _check_once(lines: Sequence[_Line]) -> None:
    first: dict[str, _Line] = {}
    for line in lines:
        other = first.setdefault(line.file, line)
        if other is not line:
            raise BadInput(
                "root", f"{shown(line.key)} stands twice: {other.where}, {line.where}", "remove one"
            )


def _stamp(path: str) -> tuple[int, ...]:
    try:
        return stat(path)
    except OSError:  # named when it is read
        return 0, 0, 0, 0
