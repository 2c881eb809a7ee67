"""Architectures: a file a family, each class the fields of a config and the module that they make."""

import abc
import dataclasses
from typing import Annotated, ClassVar

import flax.linen as nn

from kdjax.choice import Choice, import_all
from kdjax.config.fields import Text, untracked
from kdjax.config.imported import FromStage, Imported
from kdjax.data import sources
from kdjax.inputs import Inputs
from kdjax.models import Compute
from kdjax.ranges import In
from kdjax.types import BadInput, Fault

Multiplier = Annotated[float, In("(0, 100]")]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Encoder(Choice, abc.ABC):
    """What turns an example into features: an image, a text.

    Attributes:
      shaped_by: the field that decides of what its features are; None where they are always [batch, dim].
      weights: that it begins with: where published ones are, or the fields of `Imported`; or, as
        `FromStage`, layers of another stage's encoder. No part of what the network is; their content is
        part of the fingerprint of the stage that begins with them.
    """

    shaped_by: ClassVar[str | None] = None

    weights: Text | Imported | FromStage | None = untracked(None)

    @property
    def imported(self) -> Imported | None:
        """The published weights that it begins with."""
        if isinstance(self.weights, FromStage):
            return None
        return Imported(source=self.weights) if isinstance(self.weights, str) else self.weights

    @property
    def begun_from(self) -> FromStage | None:
        """Where the layers are that it begins with."""
        return self.weights if isinstance(self.weights, FromStage) else None

    @property
    def weights_field(self) -> dict[str, str]:
        """Where its weights are said to be, for messages; see `kdjax.types.under`."""
        return {"weights": "weights.source"} if isinstance(self.weights, Imported) else {}

    @property
    def architecture(self) -> "Encoder":
        """What the network is, whatever it begins with."""
        return dataclasses.replace(self, weights=None)

    @property
    def open(self) -> "Encoder":
        """The same, for as many tokens as the data have, whatever its own config says."""
        known = {"vocab": None} if "vocab" in self.__dataclass_fields__ else {}
        return dataclasses.replace(self, **known)

    def given(self, inputs: Inputs) -> "Encoder":
        """The same with what it takes from its inputs, such as the vocabulary of texts.

        Raises:
          BadInput: they are no inputs for it; the line names the field of the encoder.
        """
        return self

    def unstreamable(self) -> Fault | None:
        """Why it cannot be given an example in pieces; None where it can, see `models.streaming`."""
        return "", f"{self.title} looks at all of an example at once", "take lstm"

    @property
    @abc.abstractmethod
    def title(self) -> str:
        """What the report calls it: what is not as usual is said."""

    @abc.abstractmethod
    def module(self, compute: Compute) -> nn.Module:
        """The module; its features are [batch, dim], float32.

        Raises:
          BadInput: there is no such network; the line names the field of the encoder.
        """


def of_tokens(name: str, inputs: Inputs, *, vocab: int | None, positions: int | None = None) -> int:
    """The vocabulary of an encoder of texts.

    Args:
      name: of the encoder.
      inputs: that it is to be given.
      vocab: what its config says.
      positions: how many tokens it takes at most; None for any number.

    Raises:
      BadInput: an example has no tokens, or there are other or longer ones than the encoder takes.
    """
    tokens = inputs.fields.get(sources.TOKENS)
    if tokens is None or tokens.below is None:
        raise BadInput(
            "encoder", f"{name} reads {sources.TOKENS}, and an example is {inputs}", "take another"
        )
    if vocab is not None and vocab < tokens.below:
        raise BadInput(
            "encoder.vocab",
            f"{vocab}, and the data have {tokens.below} tokens",
            "give as many, or the tokenizer that belongs to the network",
        )
    if positions is not None and tokens.shape[0] > positions:
        raise BadInput(
            "encoder.positions",
            f"{positions}, and texts of the data are of up to {tokens.shape[0]} tokens",
            "give more, or data.source.max_length as many, and truncate=True to cut what is longer",
        )
    return tokens.below if vocab is None else vocab


def vocab_of(vocab: int | None) -> int:
    """Of an encoder of texts that has been given its inputs, or whose config says it.

    Raises:
      BadInput: neither is so.
    """
    if vocab is None:
        raise BadInput("encoder.vocab", "missing", "give as many as the data have tokens")
    return vocab


def but(mark: str, value: float | int, usual: float | int) -> str:
    """A part of a title: the value behind its mark, nothing where it is the usual one."""
    return "" if value == usual else f"{mark}{value:g}"


def imagenet(stem: bool) -> str:
    """A part of a title: the stem is the one published for ImageNet."""
    return "-imagenet" if stem else ""


import_all(__name__, __path__)
