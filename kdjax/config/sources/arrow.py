"""Arrow and Parquet files."""

import dataclasses
from typing import Literal

from kdjax import data
from kdjax.config.fields import Count, Text
from kdjax.config.sources import Pictures, reading
from kdjax.data import Dataset, sources


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arrow(Pictures):
    """What `datasets` has saved, or `*.arrow` and `*.parquet` files; see `kdjax.data.sources.arrow`.

    Attributes:
      image: the column of the pictures.
      label: the column of the classes, or of numbers to be predicted; None for none.
      classes: how many there are, where the files do not say it.
    """

    kind: Literal["arrow"]
    image: Text = "image"
    label: Text | None = "label"
    classes: Count | None = None

    def dataset(self, split: str, *, data_dir: str | None, kept: data.Kept | None) -> Dataset:
        """See `Source`."""
        with reading():
            return sources.arrow(
                split,
                root=self.root,
                image=self.image,
                label=self.label,
                classes=self.classes,
                **self.how(kept),
            )
