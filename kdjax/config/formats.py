"""The formats of files that a config may name: kdjax's, see `kdjax.export.formats`, or one's own."""

import dataclasses

from kdjax.config import own
from kdjax.export import Format, Runtime, suffix_fault
from kdjax.types import BadInput

__all__ = ["Format", "OwnFormat"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class OwnFormat(own.Own, Format):
    """A format of the user's: a subclass of `kdjax.export.Runtime`, or a function that makes one."""

    def runtime(self, *, path: str) -> Runtime:
        """What the function makes.

        Raises:
          BadInput: it fails, makes no runtime, or one whose files have no suffix.
        """
        found = self.called(path)
        if not isinstance(found, Runtime):
            raise BadInput(
                f"{path}.function",
                f"{self.function} gave {own.shown(found)}, and no kdjax.export.Runtime",
            )
        if (fault := suffix_fault(found)) is not None:
            raise BadInput(f"{path}.function", f"{self.function}: {fault}")
        for name, method in (("write", found.write), ("load", found.load)):
            asked = ("model", "path") if name == "write" else ("path",)
            named = {} if name == "write" else {"threads": 1}
            if (fault := own.misfit(method, *asked, **named)) is not None:
                raise BadInput(f"{path}.function", f"{name} of {self.function}: {fault}")
        return found
