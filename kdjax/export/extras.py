"""Packages that only one format needs."""

import importlib.util

from kdjax.types import BadInput


def require(format: str, *packages: str, extra: str) -> None:
    """Looks for the packages of a format without importing them, so that it can be asked early.

    Raises:
      BadInput: one is not installed; the line names the extra that has it.
    """
    if not all(importlib.util.find_spec(package) for package in packages):
        raise BadInput("", f"{format} needs its extra: pip install 'kdjax[{extra}]'")
