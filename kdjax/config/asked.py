"""What models are asked of data that have no labels: what another network answers."""

import abc
import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from kdjax import data
from kdjax.choice import Choice
from kdjax.config.fields import Count, Symbols, Text
from kdjax.data.transcripts import Unit, faults_of
from kdjax.types import Fault


class Asked(Choice, abc.ABC):
    """What models are asked of examples none of which has a label."""

    tag: ClassVar[str] = "kind"

    if TYPE_CHECKING:
        kind: Any

    @abc.abstractmethod
    def target(self) -> data.Target:
        """As much as a dataset says it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class AskedClasses(Asked):
    """One of several classes, as a published classifier has them.

    Attributes:
      classes: how many there are.
      names: what they are called, in their order, for the report and for exported files.
    """

    kind: Literal["classes"]
    classes: Count
    names: tuple[Text, ...] = ()

    def target(self) -> data.Classes:
        """See `kdjax.data.Classes`."""
        return data.Classes(self.classes, self.names)


@dataclasses.dataclass(frozen=True, kw_only=True)
class AskedTranscripts(Asked):
    """What is said in a recording, as a CTC model has its symbols.

    Attributes:
      alphabet: the symbols, in their order, without the blank.
      unit: a symbol is one of the `characters`, or one of the `words`.
    """

    kind: Literal["transcripts"]
    alphabet: Symbols
    unit: Unit = "characters"

    def faults(self) -> Iterator[Fault]:
        """Symbols that are none."""
        yield from faults_of(self.alphabet, self.unit)

    def target(self) -> data.Transcripts:
        """See `kdjax.data.Transcripts`."""
        return data.Transcripts(self.alphabet, 1, self.unit)


@dataclasses.dataclass(frozen=True, kw_only=True)
class AskedVectors(Asked):
    """A vector, such as the features of a published encoder; directions count, and lengths do not.

    Attributes:
      dim: numbers of a vector.
    """

    kind: Literal["vectors"]
    dim: Count

    def target(self) -> data.Vectors:
        """See `kdjax.data.Vectors`."""
        return data.Vectors(self.dim)
