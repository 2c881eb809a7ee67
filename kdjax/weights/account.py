"""What has become of every tensor of published weights."""

import dataclasses
from collections.abc import Mapping
from typing import Any

VERSION = 1
"""Of the rules: raised when they make other variables of the same tensors. Part of every fingerprint."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Account:
    """What has become of every tensor of the files, and of every variable of the network.

    Attributes:
      layout: by which they were understood.
      version: of the rules.
      sha256: of the files.
      revision: the commit, of a repository.
      tensors: in the files.
      matched: of them, those that became variables.
      variables: that they became.
      ignored: tensors that no network needs, such as counts of batches.
      skipped: tensors that were left out as asked.
      fresh: variables that were left as they begin, as asked.
      head: what has become of the classifier: `taken`, or why not.
      classes: of it; None where there is none in the files.
      dtypes: of the tensors that were taken, and how many.
      prefix: of the names in the files, without which the layout has them.
      counters: numbers of batches that BatchNorms have seen, by the name of the tensor.
    """

    layout: str
    version: int
    sha256: str
    revision: str | None
    tensors: int
    matched: int
    variables: int
    ignored: tuple[str, ...]
    skipped: tuple[str, ...]
    fresh: tuple[str, ...]
    head: str
    classes: int | None
    dtypes: Mapping[str, int]
    prefix: str
    counters: Mapping[str, int]

    def plain(self) -> dict[str, Any]:
        """For a manifest."""
        found = dataclasses.asdict(self)
        return {name: list(v) if isinstance(v, tuple) else v for name, v in found.items()}

    def __str__(self) -> str:
        """In one line."""
        left = [f"{len(self.ignored)} ignored"] if self.ignored else []
        left += [f"{len(self.skipped)} skipped"] if self.skipped else []
        left += [f"{len(self.fresh)} variables fresh"] if self.fresh else []
        said = f"{self.matched} of {self.tensors} tensors ({self.layout}) are {self.variables} variables"
        return ", ".join([said, *left, f"classifier {self.head}"])
