"""Tars of pictures, as WebDataset writes them."""

import dataclasses
from typing import Literal

from kdjax import data
from kdjax.config.fields import Count, Text
from kdjax.config.sources import Pictures, reading
from kdjax.data import Dataset, sources


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tar(Pictures):
    """Tars of pictures beside their labels; see `kdjax.data.sources.tar`.

    Attributes:
      image: the ending of the pictures, where an example has several.
      label: the ending of the classes, `cls`, or a field of JSON, `json.label`; `auto` is whichever there
        is, None is none.
      names: of the classes in their order, where labels are integers.
      classes: how many there are; one more than the largest label by default.
    """

    kind: Literal["tar"]
    image: Text | None = None
    label: Text | None = "auto"
    names: tuple[Text, ...] | None = None
    classes: Count | None = None

    def dataset(self, split: str, *, data_dir: str | None, kept: data.Kept | None) -> Dataset:
        """See `Source`."""
        with reading():
            return sources.tar(
                split,
                root=self.root,
                image=self.image,
                label=self.label,
                names=self.names,
                classes=self.classes,
                **self.how(kept),
            )
