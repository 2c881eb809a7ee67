"""The arguments of a word of the command line."""

import argparse
import inspect
from typing import NoReturn

from kdjax.types import BadInput


class Arguments(argparse.ArgumentParser):
    """Bad arguments end as other bad input does, in one line."""

    def error(self, message: str) -> NoReturn:
        """Raises `BadInput`."""
        raise BadInput("", message, f"see {self.prog} --help")


def parser(word: str, description: str | None) -> Arguments:
    """The parser of a word; its description, a docstring, is printed as it stands."""
    return Arguments(
        prog=f"kdjax {word}",
        description=inspect.cleandoc(description or ""),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
