"""A folder of pictures."""

import dataclasses
from typing import Literal

from kdjax import data
from kdjax.config.fields import Count
from kdjax.config.sources import Pictures, reading
from kdjax.data import Dataset, sources
from kdjax.data.sources.folders import LabelsFrom, Layout


@dataclasses.dataclass(frozen=True, kw_only=True)
class Folder(Pictures):
    """A folder of JPEG, PNG, WebP, GIF and BMP files; see `kdjax.data.sources.folder`.

    Attributes:
      layout: its own folders are `splits`, or all pictures lie `together`; `auto` goes by their names.
      labels: a picture's class is the `first` folder that it lies in, or the `last` one, or there is
        `none`; `auto` takes the only one.
      classes: how many there are, where they are more than there are folders.
    """

    kind: Literal["folder"]
    layout: Layout = "auto"
    labels: LabelsFrom = "auto"
    classes: Count | None = None

    def dataset(self, split: str, *, data_dir: str | None, kept: data.Kept | None) -> Dataset:
        """See `Source`."""
        with reading():
            return sources.folder(
                split,
                root=self.root,
                layout=self.layout,
                labels=self.labels,
                classes=self.classes,
                **self.how(kept),
            )
