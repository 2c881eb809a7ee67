"""A table of paths of pictures and their labels, in text."""

import csv
import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, Unpack

import numpy as np
from jaxtyping import Shaped

from kdjax.data.dataset import Dataset
from kdjax.data.seen import stat
from kdjax.data.sources import splits
from kdjax.data.sources.encoded import Encoded
from kdjax.data.sources.options import How, classes_of, dataset_of, files_below, local, shown
from kdjax.data.targets import Target, Values
from kdjax.spelling import suggestion
from kdjax.types import BadInput

_SNIFFED = 2**16
_DELIMITERS = ",;\t|"


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
    whichever of comma, semicolon, tab and bar the `csv` module finds. A split is what `train`, `test` or
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
    lines = [line for name, file in files.items() for line in _lines(name, file, asked)]
    _check_once(lines)
    if target == "values":
        labels, asks = _values(lines, columns, name=shown(path))
    else:
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
        splits=_splits(lines, files, split_column, name=shown(path)),
    )
    return dataset_of(encoded, split, what={"table": path}, **how)


class _Line(NamedTuple):
    """A line of a table.

    Attributes:
      table: the path of its file, relative to the root.
      where: it stands, for messages.
      file: the picture.
      key: its path relative to the folder of the table.
      cells: by column.
    """

    table: str
    where: str
    file: str
    key: str
    cells: Mapping[str, str]


def _lines(name: str, path: str, columns: Mapping[str, Sequence[str]]) -> list[_Line]:
    """The lines of a table.

    Args:
      name: of the table.
      path: of its file.
      columns: that are read, by the field that names them; the paths are in that of `image`.

    Raises:
      BadInput: it cannot be read, or has no such column, or a path is none.
    """
    found: list[_Line] = []
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            begin = file.read(_SNIFFED)
            file.seek(0)
            rows = csv.DictReader(file, dialect=_dialect(begin), strict=True)
            header = [*(rows.fieldnames or [])]
            for field, asked in columns.items():
                for column in asked:
                    if column not in header:
                        raise BadInput(
                            field,
                            f"{shown(path)} has no column {column!r}: its first line has "
                            f"{shown(', '.join(header)) or 'nothing'}",
                            suggestion(column, header) if header else "write their names there",
                        )
            for row in rows:
                where = f"line {rows.line_num} of {shown(name)}"
                if None in row or None in row.values():
                    raise BadInput(
                        "root", f"{where} has not as many columns as the first one", "mend the line"
                    )
                key = _inside(row[columns["image"][0]], where)
                picture = os.path.join(os.path.dirname(path), key)
                found.append(_Line(name, where, picture, key, row))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        said = " ".join(str(error).split())
        raise BadInput(
            "root", f"{shown(path)} cannot be read ({said})", "save it as CSV in UTF-8"
        ) from None
    return found


def _dialect(begin: str) -> Any:
    try:
        return csv.Sniffer().sniff(begin, _DELIMITERS)
    except csv.Error:  # a single column
        return csv.excel


def _inside(text: str, where: str) -> str:
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


def _values(
    lines: Sequence[_Line], columns: Sequence[str], *, name: str
) -> tuple[Shaped[np.ndarray, "n dim"], Target]:
    """Numbers to be predicted; NaN where a line has none."""
    if not columns:
        raise BadInput("label", "missing", "name the columns of the values")
    found = np.full((len(lines), len(columns)), np.nan)
    for i, line in enumerate(lines):
        for j, column in enumerate(columns):
            text = line.cells[column].strip()
            try:
                found[i, j] = float(text) if text else np.nan
            except ValueError:
                raise BadInput(
                    "label", f"{text!r} in {column} is no number ({line.where})", "mend the line"
                ) from None
    target = Values(len(columns))
    return target.read(found, n=len(lines), name=name), target


def _splits(
    lines: Sequence[_Line], files: Mapping[str, str], column: str | None, *, name: str
) -> dict[str, np.ndarray] | None:
    """The rows of each split."""
    if column is not None:
        of = [line.cells[column].strip() for line in lines]
        if "" in of:
            where = lines[of.index("")].where
            raise BadInput("split_column", f"{where} has no split in {column}", "fill it in")
        return {key: np.flatnonzero([one == key for one in of]) for key in sorted({*of})}
    parts = splits.of_paths(files, what=name)
    if parts is None:
        return None
    return {
        key: np.flatnonzero([line.table in inside for line in lines])
        for key, inside in parts.items()
    }


def _stamp(path: str) -> tuple[int, ...]:
    try:
        return stat(path)
    except OSError:  # named when it is read
        return 0, 0, 0, 0
