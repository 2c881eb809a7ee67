"""The formats of exported files: a file each, with the class that a config names and a stage asks."""

import abc
import os
from pathlib import PurePath
from typing import ClassVar

from kdjax.choice import Choice, choices, import_all
from kdjax.export.runtime import Runtime
from kdjax.types import BadFile


class Format(Choice, abc.ABC):
    """What a config names; a text is the name of one: `"onnx"` is `{"name": "onnx"}`."""

    by_name: ClassVar[bool] = True

    @abc.abstractmethod
    def runtime(self, *, path: str) -> Runtime:
        """How its files are written and run.

        Args:
          path: of this in the config, for messages.

        Raises:
          BadInput: there is none.
        """


class Known(Format, Runtime):
    """One of kdjax's, told by its suffix."""

    def runtime(self, *, path: str) -> Runtime:
        """Itself."""
        return self


def known() -> dict[str, Known]:
    """Kdjax's own, by the suffix of their files."""
    kinds = [kind for kind in choices(Format) if issubclass(kind, Known)]
    return {one.suffix: one for one in (kind() for kind in kinds)}


def of_file(path: str | os.PathLike[str]) -> Known:
    """The format of a file, by the ending of its name.

    Raises:
      BadInput: it is none of kdjax's.
    """
    found = known()
    suffix = PurePath(os.fspath(path)).suffix
    if suffix not in found:
        raise BadFile(
            os.fspath(path),
            f"no format has files that end in {suffix!r}",
            f"known: {', '.join(sorted(found))}",
        )
    return found[suffix]


import_all(__name__, __path__)
