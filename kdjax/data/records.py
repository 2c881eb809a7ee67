"""The records of a prepared TFDS split by row: what cannot be read is named, with its file."""

import bisect
import itertools
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from etils import epath, epy

from kdjax.types import BadInput

with epy.lazy_imports():  # slow to import, and other sets do without
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core import example_parser

MEND = "fetch the dataset again, or prepare it again"


class Shard(NamedTuple):
    """A file, and which of its records belong to the split.

    Attributes:
      path: of the file.
      skip: records before the first one.
      take: how many from there on.
      total: of the file, as `dataset_info.json` says.
    """

    path: str
    skip: int
    take: int
    total: int


class Records:
    """Random access to some features of the records of a split. Threads may share one."""

    def __init__(self, builder: Any, split: str, *, name: str, keys: Sequence[str]):
        """Opens every file of the split once.

        Args:
          builder: of the dataset.
          split: as TFDS writes it.
          name: of dataset and split, for messages.
          keys: the features that are read; nothing else of a record is looked at.

        Raises:
          BadInput: a file is missing, cannot be opened, or has not as many records as it should.
        """
        self.name, self._keys = name, tuple(keys)
        self.features = {key: builder.info.features[key] for key in keys}
        self._parser = example_parser.ExampleParserNp(
            {key: feature.get_serialized_info() for key, feature in self.features.items()}
        )
        instructions = builder.info.splits[split].file_instructions
        self.shards = [
            Shard(str(f.filename), f.skip, f.take, f.examples_in_shard) for f in instructions
        ]
        self._ends = list(itertools.accumulate(shard.take for shard in self.shards))
        for shard in dict.fromkeys(self.shards):
            self._check(shard)
        raw = tfds.decode.DeserializeMethod.RAW_BYTES
        self._source = builder.as_data_source(split, deserialize_method=raw)

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def where(self, row: int) -> str:
        """Which record of which file a row is."""
        path, number = self._place(row)
        return f"record {number} of {path}"

    def key(self, row: int) -> bytes:
        """By which a record is told from all others of its set, whichever part of it is read."""
        path, number = self._place(row)
        return os.fsencode(f"{os.path.basename(path)} {number}")

    def _place(self, row: int) -> tuple[str, int]:
        at = bisect.bisect_right(self._ends, row)
        shard, before = self.shards[at], self._ends[at - 1] if at else 0
        return shard.path, shard.skip + row - before

    def read(self, rows: Sequence[int]) -> list[dict[str, Any]]:
        """The features of these rows, pictures as bytes.

        Raises:
          BadInput: a record is damaged, or is not what `features.json` says.
        """
        try:
            contents = self._source.__getitems__(list(rows))
        except Exception:  # array_record raises RuntimeError, and what a file system raises
            contents = [self._content(row) for row in rows]
        return [self._parsed(row, content) for row, content in zip(rows, contents, strict=True)]

    def _content(self, row: int) -> bytes:
        try:
            return self._source.__getitems__([row])[0]
        except Exception as error:
            raise self.fault(row, f"it cannot be read ({_line(error)})") from None

    def _parsed(self, row: int, content: bytes) -> dict[str, Any]:
        try:
            parsed: Mapping[str, Any] = self._parser.parse_example(content)
            missing = [key for key in self._keys if parsed[key] is None]
            if not missing:
                return {key: self._decoded(key, parsed[key]) for key in self._keys}
        except Exception as error:  # whatever protobuf, NumPy or TFDS makes of other bytes
            raise self.fault(row, f"it is not what features.json says ({_line(error)})") from None
        raise self.fault(row, f"it has no {missing[0]!r}, which features.json says it has")

    def _decoded(self, key: str, value: Any) -> Any:
        feature = self.features[key]
        if isinstance(feature, tfds.features.Image):
            return value
        return feature.decode_example_np(value)

    def fault(self, row: int, what: str, *, mend: str = MEND) -> BadInput:
        """What is wrong with the record of a row, to raise."""
        return BadInput("data", f"{self.name}, {self.where(row)}: {what}", mend)

    def _check(self, shard: Shard) -> None:
        path = epath.Path(shard.path)
        if not path.exists():
            raise BadInput("data", f"{self.name}: the file {path} is missing", MEND)
        if path.is_dir():
            raise BadInput("data", f"{self.name}: {path} is a folder, where a file should be", MEND)
        from array_record.python.array_record_module import ArrayRecordReader

        try:
            reader: Any = ArrayRecordReader(str(path))
            found = reader.num_records()
            if found == shard.total:  # one that is cut short cannot even be closed
                reader.close()
        except (
            Exception
        ) as error:  # array_record raises RuntimeError, and what a file system raises
            raise BadInput(
                "data", f"{self.name}: the file {path} cannot be read ({_line(error)})", MEND
            ) from None
        if found != shard.total:
            raise BadInput(
                "data",
                f"{self.name}: the file {path} has {found} records, and dataset_info.json says "
                f"{shard.total}",
                MEND,
            )


def _line(error: Exception) -> str:
    """One line of what an error says."""
    return " ".join(str(error).split()) or type(error).__name__
