"""Rows of tables: CSV, JSON lines, Arrow and Parquet, whatever stands in them."""

import csv
import json
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Shaped

from kdjax.data.several import Several
from kdjax.data.sources import splits
from kdjax.data.sources.options import integer, shown
from kdjax.data.targets import Target, Values
from kdjax.files import from_json
from kdjax.spelling import suggestion
from kdjax.types import BadInput, under

_DELIMITERS = ",;\t|"

_HALF = re.compile("[\ud800-\udfff]")
"""What stands for no character by itself: JSON can write it, and UTF-8 cannot."""

_MOST = float(np.finfo(np.float32).max)

Asked = Mapping[str, Sequence[str]]
"""Columns that are read, by the field that names them."""


class Row(NamedTuple):
    """A row of a table.

    Attributes:
      table: the path of its file, relative to the root.
      where: it stands, for messages.
      cells: by column; of a CSV they are texts.
    """

    table: str
    where: str
    cells: Mapping[str, Any]


def csv_rows(name: str, path: str, asked: Asked, *, texts: Sequence[str] = ()) -> list[Row]:
    """The rows of a CSV file under a line with the names of its columns.

    They are parted by whichever of comma, semicolon, tab and bar the most of the columns that are asked
    for stand between in the first line.

    Args:
      name: of the table.
      path: of its file.
      asked: columns that it must have.
      texts: those that may have ends of lines in a cell.

    Raises:
      BadInput: it cannot be read, or has no such column, or a cell goes on in the next line.
    """
    found: list[Row] = []
    wanted = {column for columns in asked.values() for column in columns}
    at = 1
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            first = file.readline()
            file.seek(0)
            delimiter = _delimiter(first, wanted)
            rows = csv.DictReader(file, delimiter=delimiter, strict=True)
            header = [*(rows.fieldnames or [])]
            check_columns(asked, header, f"{shown(path)}", where="its first line has")
            for row in rows:
                begin, at = at + 1, rows.line_num
                where = f"line {at} of {shown(name)}"
                if None in row or None in row.values():
                    raise BadInput(
                        "root", f"{where} has not as many columns as the first one", "mend the line"
                    )
                if begin < at and (fault := _swallowed(row, wanted - {*texts}, delimiter)):
                    raise BadInput(
                        "root",
                        f"lines {begin} to {at} of {shown(name)} are one cell {fault}, from one "
                        "quotation mark to another",
                        "write each quotation mark twice, within a cell in quotation marks",
                    )
                found.append(Row(name, where, row))
    except csv.Error as error:
        raise BadInput(
            "root",
            f"what follows line {at} of {shown(name)} cannot be read ({_line(error)})",
            "mend the line: a quotation mark within a cell in quotation marks is written twice",
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(
            "root", f"{shown(path)} cannot be read ({_line(error)})", "save it as CSV in UTF-8"
        ) from None
    return found


def _swallowed(row: Mapping[str, str], of_one_line: set[str], delimiter: str) -> str | None:
    """Which cell of a row of several lines is none, but has further rows; None where a text may have."""
    for column, cell in row.items():
        if not {*cell} & {*"\r\n"}:
            continue
        if column in of_one_line:
            return f"of {column!r}"
        if delimiter in "\t|" and delimiter in cell:
            return "with tabs in it" if delimiter == "\t" else f"with {delimiter} in it"
    return None


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


def _delimiter(first: str, wanted: set[str]) -> str:
    """The one by which the first line has the most of these columns, or else the most columns."""

    def columns(delimiter: str) -> tuple[int, int]:
        try:
            cells = next(csv.reader([first], delimiter=delimiter), [])
        except csv.Error:
            return 0, 0
        return len(wanted & {*cells}), len(cells)

    return max(_DELIMITERS, key=columns)


def check_columns(asked: Asked, header: Sequence[str], name: str, *, where: str = "it has") -> None:
    """Raises `BadInput`, naming the field that asked, where a table has no such column."""
    for field, columns in asked.items():
        for column in columns:
            if column not in header:
                raise BadInput(
                    field,
                    f"{name} has no column {column!r}: {where} "
                    f"{shown(', '.join(header)) or 'nothing'}",
                    suggestion(column, header) if header else "write their names there",
                )
            if (n := header.count(column)) > 1:
                raise BadInput(
                    field, f"{name} has {n} columns {column!r}", "call the others otherwise"
                )


def json_rows(name: str, path: str, asked: Asked) -> list[Row]:
    """The rows of a file with an object of JSON a line.

    Raises:
      BadInput: it cannot be read, or a line is no object or has no such column.
    """
    found: list[Row] = []
    for where, line in text_lines(name, path):
        if not line.strip():
            continue
        try:
            cells = from_json(line)
        except ValueError as error:
            raise BadInput("root", f"{where} is no JSON ({error})", "mend the line") from None
        if half := _HALF.search(json.dumps(cells, ensure_ascii=False)):
            raise BadInput(
                "root",
                f"{where} has half of a character (\\u{ord(half[0]):04x})",
                "remove it: a text was cut there",
            )
        if not isinstance(cells, dict):
            raise BadInput("root", f"{where} is no object", 'write lines such as {"text": "..."}')
        check_columns(asked, [*cells], where)
        found.append(Row(name, where, cells))
    return found


def text_lines(name: str, path: str) -> Iterable[tuple[str, str]]:
    """Where each line of a file stands, and what is in it, without its end.

    Raises:
      BadInput: it cannot be read, or a line is not UTF-8, or has what ended lines on old machines.
    """
    try:
        with open(path, "rb") as file:
            for i, line in enumerate(file, start=1):
                where = f"line {i} of {shown(name)}"
                text = utf8(line.removeprefix(b"\xef\xbb\xbf") if i == 1 else line, where)
                if "\r" in text:
                    raise BadInput(
                        "root",
                        f"{where} has carriage returns within it (\\r), which end no line",
                        "save it with line feeds (\\n), or remove them",
                    )
                yield where, text
    except OSError as error:
        raise BadInput(
            "root", f"{shown(path)} cannot be read ({error.strerror})", "copy it again"
        ) from None


def utf8(text: bytes, where: str) -> str:
    """A text without the end of its line.

    Raises:
      BadInput: it is not UTF-8.
    """
    try:
        return text.decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise BadInput(
            "root",
            f"{where} is not UTF-8 (byte {text[error.start]:#04x} at {error.start})",
            "save it as UTF-8",
        ) from None


def check_names(rows: Sequence[Any], column: str, *, names: Sequence[str] | None) -> None:
    """Refuses labels that would be classes of their own by a slip, in a column of classes.

    Args:
      rows: with `where` and `cells`, as `Row` has them.
      column: of the labels.
      names: of the classes, where they are known: then others are refused in any case.

    Raises:
      BadInput: some are integers and others are not; or two differ by spaces around them, or by how their
        letters are put together.
    """
    first: dict[str, Any] = {}
    for row in rows:
        if isinstance(label := row.cells[column], str | int):
            first.setdefault(str(label), row)
    for label, row in first.items():
        bare = unicodedata.normalize("NFC", label.strip())
        if label != bare and (not bare or bare in first):
            fault, mend = "has spaces around it", "remove them"
            if label == label.strip():
                fault, mend = f"looks like {bare!a}", "write both in one way (NFC)"
            raise BadInput(
                "label",
                f"{label!a} in {column} {fault} ({row.where})",
                mend if bare else "leave it empty where there is none",
            )
    whole = {label for label in first if integer(label) is not None}
    if names is None and 0 < len(whole) < len(first):
        label = next(label for label in first if label not in whole)
        raise BadInput(
            "label",
            f"{label!r} in {column} is no integer ({first[label].where}), and "
            f"{next(one for one in first if one in whole)!r} is one",
            "mend it; or give names in their order if they are the names of classes",
        )


def values_of(
    rows: Sequence[Any], columns: Sequence[str], *, name: str
) -> tuple[Shaped[np.ndarray, "n dim"], Target]:
    """Numbers to be predicted; NaN where a row has none.

    Args:
      rows: with `where` and `cells`, as `Row` has them.
      columns: of the numbers, or one with lists of them.
      name: of the data, for messages.

    Raises:
      BadInput: what stands there is no number, or there are not as many in each row.
    """
    if not columns:
        raise BadInput("label", "missing", "name the columns of the values")
    found = [_numbers(row, columns) for row in rows]
    dim = next((len(own) for own in found if own is not None), len(columns))
    for row, own in zip(rows, found, strict=True):
        if own is not None and len(own) != dim:
            raise BadInput("label", f"{row.where} has {len(own)} numbers, and others have {dim}")
    given = np.asarray([[np.nan] * dim if own is None else own for own in found], np.float64)
    return _read(given.reshape(-1, dim), Values(dim), name=name)


def several_of(
    rows: Sequence[Any], columns: Sequence[str], *, names: Sequence[str] | None, name: str
) -> tuple[Shaped[np.ndarray, "n dim"], Target]:
    """Any number of classes of each row; NaN where a row has no label.

    Args:
      rows: with `where` and `cells`, as `Row` has them.
      columns: one a class, with 1 and 0; or a single one with lists of names of classes.
      names: of the classes in their order; of lists, in that of the alphabet by default.
      name: of the data, for messages.

    Raises:
      BadInput: what stands there is neither, or a name is no class.
    """
    if len(columns) > 1:
        given, _ = values_of(rows, columns, name=name)
        return _read(given, Several(len(columns), tuple(names or columns)), name=name)
    lists = [row.cells[column] for row in rows for column in columns]
    for row, own in zip(rows, lists, strict=False):
        if own is not None and not (isinstance(own, list) and all(isinstance(n, str) for n in own)):
            raise BadInput(
                "label",
                f"{own!r} in {columns[0]} is no list of names ({row.where})",
                "give a column for each class, or lists in JSON lines, Arrow or Parquet",
            )
    known = [*names] if names else sorted({n for own in lists if own is not None for n in own})
    place = {n: i for i, n in enumerate(known)}
    found = np.full((len(rows), len(known)), np.nan)
    for at, (row, own) in zip(found, zip(rows, lists, strict=True), strict=True):
        if strange := [n for n in own or () if n not in place]:
            mend = suggestion(strange[0], known)
            raise BadInput("label", f"{strange[0]!r} is no class ({row.where})", mend)
        if own is not None:
            at[:] = 0.0
            at[[place[n] for n in own]] = 1.0
    if not known:
        raise BadInput("label", f"no row of {name} has a class", "give names of the classes")
    return _read(found, Several(len(known), tuple(known)), name=name)


def _read(given: np.ndarray, target: Target, *, name: str) -> tuple[np.ndarray, Target]:
    with under("", {"data": "label"}):
        return target.read(given, n=len(given), name=name), target


def _number(value: Any) -> float:
    """As it is written anywhere: `float` alone takes Python's `1_0` for 10, and true for 1.

    Raises:
      TypeError, ValueError: it is none.
    """
    if isinstance(value, bool | np.bool_) or (isinstance(value, str) and "_" in value):
        raise ValueError(value)
    return float(value)


def _numbers(row: Any, columns: Sequence[str]) -> list[float] | None:
    """Those of a row; None where it has none at all."""
    given = [row.cells[column] for column in columns]
    if len(given) == 1 and isinstance(given[0], list):
        given = given[0]
    found = []
    for i, value in enumerate(given):
        column = columns[min(i, len(columns) - 1)]
        text = value.strip() if isinstance(value, str) else value
        try:
            found.append(np.nan if text in ("", None) else _number(text))
        except (TypeError, ValueError):
            raise BadInput(
                "label", f"{text!r} in {column} is no number ({row.where})", "mend the line"
            ) from None
        if abs(found[-1]) > _MOST:
            raise BadInput(
                "label", f"{text!r} in {column} is not finite ({row.where})", "mend the line"
            )
    none = np.isnan(found)
    if none.any() and not none.all():
        raise BadInput(
            "label",
            f"{row.where} has {int((~none).sum())} of {len(found)} numbers",
            "give all of them, or none",
        )
    return None if none.all() else found


def splits_of(
    rows: Sequence[Any], files: Iterable[str], column: str | None, *, name: str
) -> dict[str, np.ndarray] | None:
    """The rows of each split: as a column says it, or the names of their files.

    Args:
      rows: with `table`, `where` and `cells`, as `Row` has them.
      files: names of all tables.
      column: that says the split; None where there is none.
      name: of the data, for messages.

    Raises:
      BadInput: a row has no split, or some files have one and others have not.
    """
    if column is not None:
        cells = (row.cells[column] for row in rows)
        of = ["" if cell is None else str(cell).strip() for cell in cells]
        if "" in of:
            where = rows[of.index("")].where
            raise BadInput("split_column", f"{where} has no split in {column}", "fill it in")
        small = {one.lower(): one for one in of}
        if other := next((one for one in of if small[one.lower()] != one), None):
            raise BadInput(
                "split_column",
                f"{rows[of.index(other)].where} has {other!r} in {column}, and others "
                f"{small[other.lower()]!r}",
                "write one split in one way",
            )
        return {key: np.flatnonzero([one == key for one in of]) for key in sorted({*of})}
    parts = splits.of_paths(files, what=name)
    if parts is None:
        return None
    return {
        key: np.flatnonzero([row.table in inside for row in rows]) for key, inside in parts.items()
    }
