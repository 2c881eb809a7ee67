"""Sentences, and pairs of them, as people have them: lines, tables, sets that TFDS has prepared."""

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, Unpack

import numpy as np
from etils import epath, epy

from kdjax.data.dataset import Dataset
from kdjax.data.prepared import builder_of, declared_classes, folder_of, split_of
from kdjax.data.records import Records
from kdjax.data.sources import arrow_files, splits
from kdjax.data.sources.options import classes_of, files_below, local, shown
from kdjax.data.sources.rows import (
    Asked,
    Row,
    check_columns,
    check_names,
    csv_rows,
    json_rows,
    several_of,
    splits_of,
    text_lines,
    utf8,
    values_of,
)
from kdjax.data.sources.texts import Corpus, TextHow, Texts, from_texts
from kdjax.data.targets import Classes, Target, Values
from kdjax.data.unlabelled import Unlabelled
from kdjax.types import BadInput, under

with epy.lazy_imports():  # slow to import, and other sets do without
    import tensorflow_datasets as tfds

_NO_SCORE = -1
"""Of every example of a split whose scores are not published, as in GLUE."""

_CSV, _JSON, _ARROW = (".csv", ".tsv"), (".jsonl", ".ndjson"), (".arrow", ".parquet")


def lines(split: str, *, root: str | os.PathLike[str], **how: Unpack[TextHow]) -> Dataset:
    """A split of the lines of `.txt` files in UTF-8, which have no labels: for pretraining, say.

    A split is what `train`, `test` or the like in the file's name says.

    Args:
      split: as TFDS writes it.
      root: a file, or a directory with some.
      **how: see `TextHow`; `tokenizer` and `max_length` are needed.

    Raises:
      BadInput: a file cannot be read or is not UTF-8, or see `from_texts`.
    """
    path = local(root)
    found = files_below(path, (".txt",), kind="files of lines")

    def read() -> Corpus:
        rows = [
            Row(name, where, {"line": line})
            for name, file in found.items()
            for where, line in text_lines(name, file)
        ]
        return Corpus(
            texts=[(row.cells["line"],) for row in rows],
            where=lambda row: rows[row].where,
            labels=Unlabelled().hidden(len(rows)),
            target=Unlabelled(),
            splits=splits_of(rows, found, None, name=shown(path)),
        )

    texts = Texts(name=shown(path), what=["lines", *found], paths=[*found.values()], read=read)
    return from_texts(lambda split: texts, split, **how)


def text_table(
    split: str,
    *,
    root: str | os.PathLike[str],
    text: str | Sequence[str] = "text",
    label: str | Sequence[str] | None = "label",
    target: Literal["classes", "several", "values"] = "classes",
    split_column: str | None = None,
    names: Sequence[str] | None = None,
    classes: int | None = None,
    **how: Unpack[TextHow],
) -> Dataset:
    """A split of the texts that stand in tables: CSV and TSV, JSON lines, Arrow and Parquet.

    A split is what `train`, `test` or the like in the file's name says, or its `split_column`, or what
    `save_to_disk` of `datasets` has written.

    Args:
      split: as TFDS writes it.
      root: a file, or a directory with some.
      text: the column of the texts, or the two columns of pairs of them.
      label: the column of the labels, or one for each class of `several` and for each of the numbers to
        be predicted; empty or null where there is none. None for none at all.
      target: labels are `classes` (their names, or integers); `several`, any number of classes (a column
        of 1 and 0 each, or lists of names); or `values`, numbers to be predicted, such as a score.
      split_column: that names the split of each row.
      names: of the classes in their order, where labels are integers or the order is not the alphabet's.
      classes: how many there are; one more than the largest label by default.
      **how: see `TextHow`; `tokenizer` and `max_length` are needed.

    Raises:
      BadInput: a file cannot be read, or a column is not there or is no such, or see `from_texts`.
    """
    path = local(root)
    columns = [text] if isinstance(text, str) else [*text]
    labels = [] if label is None else [label] if isinstance(label, str) else [*label]
    _check_options(columns, labels, target)
    saved = arrow_files.saved_by_datasets(path)
    found = files_below(path, _CSV + _JSON + _ARROW, kind="tables")
    if saved is not None:
        inside = {name for own in saved.values() for name in own}
        found = {name: file for name, file in found.items() if name in inside}
    asked = {
        "text": columns,
        "label": labels,
        "split_column": [] if split_column is None else [split_column],
    }

    def read() -> Corpus:
        rows, known = _all_rows(found, asked, names)
        if target == "values":
            given, asks = values_of(rows, labels, name=shown(path))
        elif target == "several":
            given, asks = several_of(rows, labels, names=names, name=shown(path))
        else:
            for column in labels:
                check_names(rows, column, names=known)
            values = [row.cells[labels[0]] if labels else None for row in rows]
            given, asks = classes_of(values, classes=classes, names=known, name=shown(path))
        parts = splits_of(rows, found, split_column, name=shown(path))
        if saved is not None:
            parts = {
                key: np.flatnonzero([row.table in own for row in rows])
                for key, own in saved.items()
            }
        return Corpus(
            texts=[_texts(row, columns) for row in rows],
            where=lambda row: rows[row].where,
            labels=given,
            target=asks,
            splits=parts,
        )

    what = [asked, target, names, classes, [*found]]
    texts = Texts(name=shown(path), what=what, paths=[*found.values()], read=read)
    return from_texts(lambda split: texts, split, **how)


def _check_options(columns: Sequence[str], labels: Sequence[str], target: str) -> None:
    if not 1 <= len(columns) <= 2:
        raise BadInput("text", f"{len(columns)} columns", "give one, or two of pairs")
    if target not in ("classes", "several", "values"):
        raise BadInput("target", f"{target!r} is not one of classes, several, values")
    if target != "classes" and not labels:
        raise BadInput("label", "missing", f"name the columns of {target}")
    if target == "classes" and len(labels) > 1:
        raise BadInput("label", f"{len(labels)} columns, and a class is in one", "give one")


def _all_rows(
    files: Mapping[str, str], asked: Asked, names: Sequence[str] | None
) -> tuple[list[Row], Sequence[str] | None]:
    """The rows of all tables, and what the classes are called: `names`, or what the tables say."""
    rows, known = [], names
    for name, file in files.items():
        own, said = _rows(name, file, asked)
        rows += own
        if said is not None and known is not None and names is None and said != known:
            raise BadInput(
                "label",
                f"{shown(name)} names its classes {', '.join(said)}, and others {', '.join(known)}",
                "say names in the order of all files, or save them with the same",
            )
        known = said if known is None else known
    return rows, known


def _rows(name: str, file: str, asked: Asked) -> tuple[list[Row], list[str] | None]:
    """The rows of a table, and what its classes are called where it says so."""
    small = file.lower()
    if small.endswith(_CSV):
        return csv_rows(name, file, asked, texts=asked["text"]), None
    if small.endswith(_JSON):
        return json_rows(name, file, asked), None
    arrow_files.require()
    table = arrow_files.table_of(file, asked)
    try:
        found = table.to_pylist()
    except UnicodeDecodeError as error:
        raise BadInput(
            "root", f"{shown(file)} has a text that is not UTF-8 ({error.reason})", "save it again"
        ) from None
    rows = [Row(name, f"row {i} of {shown(name)}", cells) for i, cells in enumerate(found)]
    label = asked["label"]
    return rows, arrow_files.names_of(table.schema, label[0]) if label else None


def _texts(row: Row, columns: Sequence[str]) -> tuple[str, ...]:
    """Those of a row; what is missing is empty."""
    found = []
    for column in columns:
        value = row.cells[column]
        if value is not None and not isinstance(value, str):
            raise BadInput("text", f"{value!r} in {column} is no text ({row.where})")
        found.append(value or "")
    return tuple(found)


def tfds_text(
    split: str,
    *,
    set: str,
    text: str | Sequence[str] = "sentence",
    label: str | None = "label",
    data_dir: str | None = None,
    **how: Unpack[TextHow],
) -> Dataset:
    """A split of texts that `tfds build` has prepared, such as `sst2_sentences` and those of `glue`.

    Args:
      split: as TFDS writes it; examples come in its order.
      set: `sst2_sentences`, `glue/stsb:2.0.0`: see `kdjax.data.prepared`.
      text: the feature of the texts, or the two of pairs.
      label: the feature of the labels: a ClassLabel, -1 where there is none; or a number to be predicted,
        none where all of a split are -1, as in GLUE's tests. None for none.
      data_dir: the directory that holds `SET/VERSION/dataset_info.json`, on a file system.
      **how: see `TextHow`; `tokenizer` and `max_length` are needed, and there is no `test_share`.

    Raises:
      BadInput: nothing is prepared there, or it is damaged, or a feature is no such, or see `from_texts`.
    """
    columns = [text] if isinstance(text, str) else [*text]
    _check_options(columns, (), "classes")
    if how.get("test_share"):
        raise BadInput("test_share", "prepared sets say their splits", "leave it out")
    with under("", {"data.name": "set"}):
        folder = folder_of(set, data_dir)
    builder = builder_of(folder)
    features = builder.info.features
    asked = {"text": columns, "label": [] if label is None else [label]}
    check_columns(asked, sorted(features), set)
    for column in columns:
        if not isinstance(features[column], tfds.features.Text):
            raise BadInput("text", f"{column!r} of {set} is {type(features[column]).__name__}")
    target = _declared(features, label, set)
    known = sorted(builder.info.splits)

    def of(split: str) -> Texts:
        inside = splits.named(split, known, name=set, mend="")
        parts = {
            key: _records(builder, key, set, folder, [*columns, *asked["label"]]) for key in inside
        }

        def read() -> Corpus:
            return _of_records(parts, columns, label, target)

        return Texts(
            name=builder.info.full_name,
            what=[asked, inside],
            paths=[*dict.fromkeys(s.path for part in parts.values() for s in part.shards)],
            read=read,
            in_order=True,
        )

    return from_texts(of, split, **how)


def _records(
    builder: Any, split: str, name: str, folder: epath.Path, keys: Sequence[str]
) -> Records:
    split_of(builder, split, name=name)
    return Records(builder, split, name=f"{name} {split}", keys=keys)


def _declared(features: Any, label: str | None, name: str) -> Target:
    """What the labels of a prepared set are of."""
    if label is None:
        return Unlabelled()
    feature = features[label]
    if isinstance(feature, tfds.features.ClassLabel):
        classes = declared_classes(features, label, name, field="label")
        names = tuple(feature.names)
        plain = names == tuple(map(str, range(classes)))
        return Classes(classes, () if plain else names)
    if feature.shape == () and np.dtype(feature.np_dtype).kind in "iuf":
        return Values()
    raise BadInput("label", f"{label!r} of {name} is no ClassLabel and no number", "name another")


def _of_records(
    parts: Mapping[str, Records], columns: Sequence[str], label: str | None, target: Target
) -> Corpus:
    """All texts of some whole splits."""
    texts, labels, where, rows = [], [], [], {}
    for key, records in parts.items():
        begin = len(texts)
        for row, record in _each(records):
            at = records.where(row)
            texts.append(tuple(utf8(record[column], at) for column in columns))
            labels.append(None if label is None else record[label])
            where.append(at)
        rows[key] = np.arange(begin, len(texts))
        if isinstance(target, Values) and all(one == _NO_SCORE for one in labels[begin:]):
            labels[begin:] = [np.nan] * (len(labels) - begin)
    n, name = len(texts), " and ".join(records.name for records in parts.values())
    given = target.hidden(n) if label is None else target.read(np.asarray(labels), n=n, name=name)
    return Corpus(texts=texts, where=where.__getitem__, labels=given, target=target, splits=rows)


def _each(records: Records) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for begin in range(0, len(records), 1024):
        some = range(begin, min(begin + 1024, len(records)))
        yield from zip(some, records.read(some), strict=True)
