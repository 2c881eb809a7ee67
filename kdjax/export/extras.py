"""Packages that only one format needs."""

import importlib.util

from kdjax.types import BadInput


def require(format: str, *packages: str, extra: str | None) -> None:
    """Looks for the packages of a format without importing them, so that it can be asked early.

    Args:
      format: its name.
      *packages: that are imported for it.
      extra: of kdjax, which has them; None where none has.

    Raises:
      BadInput: one is not installed; the line says how it is.
    """
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    if missing and extra is not None:
        raise BadInput("", f"{format} needs its extra: pip install 'kdjax[{extra}]'")
    if missing:
        raise BadInput("", f"{format} needs {missing[0]}, which is not installed", "install it")
