"""Sentences, and pairs of them."""

import dataclasses
from collections.abc import Iterator
from typing import Annotated, Literal

from kdjax import data
from kdjax.config.fields import Count, Text
from kdjax.config.sources import Sentences, TestShare, reading
from kdjax.data import Dataset, sources
from kdjax.ranges import AtLeast, Distinct
from kdjax.types import Fault

Column = Text | Annotated[tuple[Text, Text], Distinct()]
"""Of the texts, or two of pairs of them."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Lines(Sentences):
    """The lines of `.txt` files in UTF-8, which have no labels; see `kdjax.data.sources.lines`.

    Attributes:
      root: a file, or a directory with some; a local path, `~` expanded. It is no part of a fingerprint:
        the texts are.
      test_share: of the texts, where there is no split `test`: by the hash of their content.
    """

    kind: Literal["lines"]
    root: str = dataclasses.field(metadata={"fingerprint": False})
    test_share: TestShare = 0.0

    def dataset(self, split: str, *, data_dir: str | None, kept: data.Kept | None) -> Dataset:
        """See `Source`."""
        with reading():
            return sources.lines(
                split, root=self.root, test_share=self.test_share, **self.how(kept)
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextTable(Sentences):
    """Texts in CSV, TSV, JSON lines, Arrow or Parquet files; see `kdjax.data.sources.text_table`.

    Attributes:
      root: a file, or a directory with some; a local path, `~` expanded. It is no part of a fingerprint:
        the texts are.
      text: the column of the texts, or the two columns of pairs of them.
      label: the column of the labels, or one for each of several classes or numbers; None for none.
      target: labels are one of several `classes`; any number of them (`several`), by a column of 1 and 0
        each or by lists of names; or `values`, numbers to be predicted, such as a score.
      split_column: that names the split of each row, where files do not.
      names: of the classes in their order, where labels are integers or lists.
      classes: how many there are; one more than the largest label by default.
      test_share: of the texts, where there is no split `test`: by the hash of their content.
    """

    kind: Literal["text_table"]
    root: str = dataclasses.field(metadata={"fingerprint": False})
    text: Column = "text"
    label: Text | Annotated[tuple[Text, ...], AtLeast(1), Distinct()] | None = "label"
    target: Literal["classes", "several", "values"] = "classes"
    split_column: Text | None = None
    names: tuple[Text, ...] | None = None
    classes: Count | None = None
    test_share: TestShare = 0.0

    def faults(self) -> Iterator[Fault]:
        """Fields that do not go together."""
        if self.target == "values":
            for name in ("names", "classes"):
                if getattr(self, name) is not None:
                    yield f"{name}, target", "values have no classes", "leave it out"
        if self.target == "several" and self.classes is not None:
            yield "classes, target", "as many as there are columns or names", "leave it out"
        if self.target != "classes" and self.label is None:
            yield "label, target", f"None, and {self.target} are asked for", "name their columns"

    def dataset(self, split: str, *, data_dir: str | None, kept: data.Kept | None) -> Dataset:
        """See `Source`."""
        with reading():
            return sources.text_table(
                split,
                root=self.root,
                text=self.text,
                label=self.label,
                target=self.target,
                split_column=self.split_column,
                names=self.names,
                classes=self.classes,
                test_share=self.test_share,
                **self.how(kept),
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class TFDSText(Sentences):
    """Texts of a set that TFDS has prepared in `data.data_dir`; see `kdjax.data.sources.tfds_text`.

    Attributes:
      set: its name: `sst2_sentences`, `glue/stsb:2.0.0`.
      text: the feature of the texts, or the two of pairs of them.
      label: the feature of the labels: classes, or a number to be predicted, which is none where all of
        a split are -1; None for none.
    """

    kind: Literal["tfds_text"]
    set: Text
    text: Column = "sentence"
    label: Text | None = "label"

    def dataset(self, split: str, *, data_dir: str | None, kept: data.Kept | None) -> Dataset:
        """See `Source`."""
        with reading():
            return sources.tfds_text(
                split,
                set=self.set,
                text=self.text,
                label=self.label,
                data_dir=data_dir,
                **self.how(kept),
            )
