"""What models are asked of data that have no labels: what a teacher answers, or their own tokens."""

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
    def asked(self, found: data.Dataset, *, tested: bool) -> data.Dataset:
        """Examples without labels as those of which it is asked.

        Args:
          found: the examples.
          tested: they are those that models are tested on.
        """


class AskedOfTeacher(Asked):
    """What a teacher answers: all labels are hidden."""

    @abc.abstractmethod
    def target(self) -> data.Target:
        """As much as a dataset says it."""

    def asked(self, found: data.Dataset, *, tested: bool) -> data.Dataset:
        """See `Asked`."""
        target = self.target()
        return dataclasses.replace(found, target=target, labels=target.hidden(len(found)))


@dataclasses.dataclass(frozen=True, kw_only=True)
class AskedClasses(AskedOfTeacher):
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
class AskedTranscripts(AskedOfTeacher):
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
class AskedVectors(AskedOfTeacher):
    """A vector, such as the features of a published encoder; directions count, and lengths do not.

    Attributes:
      dim: numbers of a vector.
    """

    kind: Literal["vectors"]
    dim: Count

    def target(self) -> data.Vectors:
        """See `kdjax.data.Vectors`."""
        return data.Vectors(self.dim)


@dataclasses.dataclass(frozen=True, kw_only=True)
class AskedTokens(Asked):
    """Which token a hidden one is: masked language modelling, see `kdjax.tasks.MaskedLM`.

    Models learn with views that hide tokens, `recipe="masked_tokens"`. They are tested on each text as
    often as it has tokens, each time with one of them hidden: their score is the pseudo-perplexity.
    """

    kind: Literal["tokens"]

    def asked(self, found: data.Dataset, *, tested: bool) -> data.Dataset:
        """See `kdjax.data.of_tokens`, and `kdjax.data.each_hidden` of those that are tested on."""
        labelled = data.of_tokens(found)
        return data.each_hidden(labelled) if tested else labelled
