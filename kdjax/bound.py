"""Layers of linen while a model is run."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import flax.linen as nn


@contextmanager
def attributes(layer: nn.Module, /, **values: Any) -> Iterator[None]:
    """The attributes of a bound layer, otherwise for a while. Linen's own setattr refuses it."""
    before = {name: getattr(layer, name) for name in values}
    for name, value in values.items():
        object.__setattr__(layer, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            object.__setattr__(layer, name, value)
