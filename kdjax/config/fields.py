"""What fields have in common."""

import dataclasses
from typing import Any

KERNELS = ".*/kernel"


def aside(default: Any) -> Any:
    """A field that says where or how a run is done, and not what it computes.

    It is no part of a stage's fingerprint.
    """
    return dataclasses.field(default=default, metadata={"fingerprint": False})
