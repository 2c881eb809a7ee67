"""How published networks are named in their files: a file for each family of networks.

Each has `LAYOUTS`; a new one is a new file, and no other edit.
"""

import functools
import importlib
import pkgutil

from kdjax.weights.rules import Layout


@functools.cache
def layouts() -> tuple[Layout, ...]:
    """All that are known."""
    names = sorted(found.name for found in pkgutil.iter_modules(__path__))
    modules = [importlib.import_module(f"{__name__}.{name}") for name in names]
    return tuple(layout for module in modules for layout in module.LAYOUTS)
