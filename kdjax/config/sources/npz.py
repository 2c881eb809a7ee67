"""NumPy's own files."""

import dataclasses
from typing import Literal

from kdjax import data
from kdjax.config.fields import Count, Text
from kdjax.config.sources import Source, TestShare, reading
from kdjax.data import Dataset, sources


@dataclasses.dataclass(frozen=True, kw_only=True)
class NPZ(Source):
    """Arrays in `.npz` and `.npy` files; see `kdjax.data.sources.npz`.

    Attributes:
      root: where they are; a local path, `~` expanded. It is no part of a fingerprint: the arrays are.
      image: what the arrays of inputs are called besides the split; `images`, `x` and such by default.
      label: likewise of the labels; `auto` is `labels`, `y` and such, or none if there is none.
      target: labels are classes, or numbers to be predicted.
      classes: how many there are; one more than the largest label by default.
      test_share: of the examples, where there is no split `test`: by the hash of their content.
    """

    kind: Literal["npz"]
    root: str = dataclasses.field(metadata={"fingerprint": False})
    image: Text | None = None
    label: Text | None = "auto"
    target: Literal["classes", "values"] = "classes"
    classes: Count | None = None
    test_share: TestShare = 0.0

    def dataset(self, split: str, *, data_dir: str | None, kept: data.Kept | None) -> Dataset:
        """See `Source`."""
        with reading():
            return sources.npz(
                split,
                root=self.root,
                image=self.image,
                label=self.label,
                target=self.target,
                classes=self.classes,
                test_share=self.test_share,
            )
