"""Data of the user's."""

import dataclasses
from typing import ClassVar

from kdjax import data, user_code
from kdjax.config import own
from kdjax.config.sources import Source
from kdjax.data import Dataset
from kdjax.types import BadInput


@dataclasses.dataclass(frozen=True, kw_only=True)
class OwnSource(own.Own, Source):
    """Data of the user's: `(split, *, ...) -> kdjax.data.Dataset`, with all its labels.

    `kdjax.data` has `from_arrays` for images in memory, `from_fields` for arrays of any kind, and
    `from_source` for whatever gives one example after the other. It may take `data_dir`.
    """

    called_with: ClassVar[tuple[str, ...]] = ("split",)
    offered: ClassVar[tuple[str, ...]] = ("data_dir",)

    def dataset(self, split: str, *, data_dir: str | None, kept: data.Kept | None) -> Dataset:
        """What the function gives of a split.

        Raises:
          BadInput: it gives no dataset, or fails.
        """
        try:
            found = self.called("data.source", split, data_dir=data_dir)
        except BadInput as error:  # of what the function gives kdjax: it stands there
            if (where := user_code.place(error)) is None:
                raise
            said = f"{where}{error.fault} (split {split})"
            raise BadInput("data.source.function", said, error.mend) from error
        if not isinstance(found, Dataset):
            raise BadInput(
                "data.source.function",
                f"{self.function} gave {own.shown(found)}, and no kdjax.data.Dataset",
            )
        return found
