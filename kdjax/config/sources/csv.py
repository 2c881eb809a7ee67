"""Tables of paths and labels."""

import dataclasses
from collections.abc import Iterator
from typing import Annotated, Literal

from kdjax import data
from kdjax.config.fields import Count, Text
from kdjax.config.sources import Pictures, reading
from kdjax.data import Dataset, sources
from kdjax.ranges import AtLeast, Distinct
from kdjax.types import Fault


@dataclasses.dataclass(frozen=True, kw_only=True)
class CSV(Pictures):
    """Pictures that CSV files name, with their labels; see `kdjax.data.sources.csv`.

    Attributes:
      image: the column of the paths, which are relative to the file.
      label: the column of the labels, or several of numbers to be predicted; None for none.
      target: labels are classes, or numbers to be predicted.
      split_column: that names the split of each line, where files do not.
      names: of the classes in their order, where labels are integers.
      classes: how many there are; one more than the largest label by default.
    """

    kind: Literal["csv"]
    image: Text = "path"
    label: Text | Annotated[tuple[Text, ...], AtLeast(1), Distinct()] | None = "label"
    target: Literal["classes", "values"] = "classes"
    split_column: Text | None = None
    names: tuple[Text, ...] | None = None
    classes: Count | None = None

    def faults(self) -> Iterator[Fault]:
        """Fields that do not go together."""
        if self.target == "values":
            for name in ("names", "classes"):
                if getattr(self, name) is not None:
                    yield f"{name}, target", "values have no classes", "leave it out"
            if self.label is None:
                yield "label, target", "None, and values are to be predicted", "name their columns"

    def dataset(self, split: str, *, data_dir: str | None, kept: data.Kept | None) -> Dataset:
        """See `Source`."""
        with reading():
            return sources.csv(
                split,
                root=self.root,
                image=self.image,
                label=self.label,
                target=self.target,
                split_column=self.split_column,
                names=self.names,
                classes=self.classes,
                **self.how(kept),
            )
