"""Names that every part of kdjax shares."""

from collections.abc import Mapping
from typing import Any, TypeAlias

from jaxtyping import Array

PyTree: TypeAlias = Any

Variables: TypeAlias = Mapping[str, PyTree]
"""A linen variable dict: `{"params": ..., "batch_stats": ...}`."""

Batch: TypeAlias = Mapping[str, Array]
"""Arrays with a leading batch axis: `id`, `image`, `label`, `teacher_logits`..."""


class BadInput(ValueError):
    """What the user gave cannot be used: one line that names the field and the mend.

    The command line prints the line and exits with status 2; nothing is lost.
    """


class StorageFailed(RuntimeError):
    """The storage failed while something was running: one line with what, where and the mend.

    The command line prints the line and exits with status 1; what was finished before stays so.
    """
