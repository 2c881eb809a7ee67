"""A stage of the user's."""

import dataclasses
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal

from kdjax.config import own
from kdjax.config.fields import Text
from kdjax.config.stage import Stage
from kdjax.config.stages import taught_by
from kdjax.ranges import Distinct
from kdjax.types import BadInput
from kdjax.user_code import FUNCTION


@dataclasses.dataclass(frozen=True, kw_only=True)
class OwnStage(own.Own, Stage):
    """A stage of the user's: `(given, *, ...) -> what its manifest says`, see `kdjax.stages.Given`.

    Or a class with a method `run(given)`, and a method `check(given)` if there is something that can be
    said before anything runs; then the arguments are those of the class.

    Attributes:
      reads: stages whose models, caches or files it is given.
      leaves: one of these: it leaves a model that is built as the one that this stage has left, with
        other parameters. None: it leaves no model.
    """

    called_with: ClassVar[tuple[str, ...]] = ("given",)

    kind: Literal["own"]
    reads: Annotated[tuple[Text, ...], Distinct()] = ()
    leaves: Text | None = None

    def called_first_with(self, function: Callable[..., Any]) -> tuple[str, ...]:
        """Nothing, of a class: its methods are given what the function is given."""
        return () if inspect.isclass(function) else self.called_with

    def faults(self) -> Iterator[tuple[str, str]]:
        """Fields that do not go together."""
        if self.leaves is not None and self.leaves not in self.reads:
            yield "leaves, reads", f"{self.leaves} is not among what it reads; name it there, too"
        found = self.loaded
        if inspect.isclass(found) and not callable(getattr(found, "run", None)):
            yield FUNCTION, f"{self.function} is a class without a method run(given)"

    def is_measured(self) -> bool:
        """Whether what it leaves is scored on test examples and their labels."""
        return self.leaves is not None

    def needs(self, stages: Mapping[str, Stage]) -> tuple[str, ...]:
        """Names of the stages that this one reads; a cache is held against its teachers."""
        found = (name for read in self.reads for name in taught_by(read, stages))
        return tuple(dict.fromkeys(found))

    def made_stage(self, path: str) -> tuple[Callable[[Any], Any], Callable[[Any], Any] | None]:
        """`(run, check)`, each of what the stage is given; None where there is no check.

        Args:
          path: of the stage, for messages.

        Raises:
          BadInput: the class cannot be made.
        """
        if not inspect.isclass(self.loaded):
            return self.made(f"{path}.{FUNCTION}"), None
        made = self.called(path)
        check = getattr(made, "check", None)
        if check is not None and not callable(check):
            raise BadInput(f"{path}.{FUNCTION}", f"{self.function}: check is no method")
        for name, method in (("run", made.run), ("check", check)):
            fault = None if method is None else own.misfit(method, "given")
            if fault is not None:
                raise BadInput(f"{path}.{FUNCTION}", f"{name} of {self.function}: {fault}")
        return made.run, check
