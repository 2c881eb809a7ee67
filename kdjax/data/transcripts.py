"""The target of recordings of which each has a transcript: the symbols of an alphabet in their order."""

import dataclasses
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Int32, Shaped

from kdjax.data.targets import UNLABELLED, Classes, Labels, Target
from kdjax.types import BadInput, Fault

Unit = Literal["characters", "words"]
"""What a symbol of a transcript is."""


@dataclasses.dataclass(frozen=True)
class Transcripts(Target):
    """What was said, as numbers of symbols: int32 [n, positions], `UNLABELLED` behind the end.

    An example without a symbol has no label: an empty transcript is none.

    Attributes:
      alphabet: the symbols that there are, in their order; a blank is not among them.
      positions: symbols of the longest transcript.
      unit: a symbol is one of the `characters`, a space among them where there are several words; or one
        of the `words`.
    """

    alphabet: tuple[str, ...]
    positions: int
    unit: Unit = "characters"

    @property
    def shape(self) -> tuple[int, ...]:
        """`(positions,)`."""
        return (self.positions,)

    @property
    def dtype(self) -> np.dtype:
        """int32."""
        return np.dtype(np.int32)

    def hidden(self, examples: int) -> Shaped[np.ndarray, "n ..."]:
        """See `Target`."""
        return np.full((examples, self.positions), UNLABELLED, self.dtype)

    def shown(self, labels: Labels) -> Bool[Any, " n"]:
        """See `Target`."""
        known: Any = labels >= 0
        return known.any(-1)

    def read(self, given: np.ndarray, *, n: int, name: str) -> Shaped[np.ndarray, "n ..."]:
        """Integers [n, positions]; see `Target`, and `transcripts_of` for texts."""
        if given.shape != (n, self.positions) or given.dtype.kind not in "iu":
            raise BadInput(
                "data",
                f"labels of {name} are {given.dtype}{list(given.shape)}",
                f"give the numbers of the symbols, integers [{n}, {self.positions}], and {UNLABELLED} "
                "behind the end",
            )
        self.check(given, name=name)
        return np.array(given, self.dtype, order="C", subok=False)

    def check(self, labels: Shaped[np.ndarray, "n ..."], *, name: str) -> None:
        """Refuses what is no symbol, and a symbol behind the end; see `Target`."""
        for field, fault, *mend in faults_of(self.alphabet, self.unit):
            raise BadInput("data", f"{field} of {name}: {fault}", *mend)
        Classes(len(self.alphabet)).check(labels, name=name)
        wrong = np.flatnonzero(((labels[:, 1:] >= 0) & (labels[:, :-1] < 0)).any(1))
        if wrong.size:
            raise BadInput(
                "data",
                f"the label of example {wrong[0]} of {name} goes on behind {UNLABELLED}",
                f"give the symbols first, and {UNLABELLED} behind the last one alone",
            )

    def text(self, label: Shaped[np.ndarray, " positions"]) -> str:
        """A transcript in words."""
        return text_of([int(i) for i in label if i >= 0], self.alphabet, self.unit)

    def facts(self) -> dict[str, Any]:
        """What is asked, and the symbols."""
        return {"target": str(self), "alphabet": [*self.alphabet]}

    def __str__(self) -> str:
        return f"transcripts of up to {self.positions} of {len(self.alphabet)} {self.unit}"


def text_of(symbols: Sequence[int], alphabet: Sequence[str], unit: Unit) -> str:
    """Symbols as a text: characters as they follow each other, words with a space between them."""
    return (" " if unit == "words" else "").join(alphabet[i] for i in symbols)


def units_of(text: str, unit: Unit) -> list[str]:
    """The symbols of a text, in Unicode's composed form (NFC); one space where there are several."""
    words = unicodedata.normalize("NFC", text).split()
    return words if unit == "words" else [*" ".join(words)]


def _is_unseen(character: str) -> bool:
    """Whether it is a control or has no form, and does not join letters, as those of Persian."""
    return unicodedata.category(character) in ("Cc", "Cf", "Cs") and character not in "\u200c\u200d"


def faults_of(alphabet: Sequence[str], unit: Unit) -> Iterator[Fault]:
    """`(field, fault, mend)` of an alphabet that is none."""
    if not alphabet:
        yield "alphabet", "it has no symbol", "give those of the transcripts"
    if len({*alphabet}) != len(alphabet):
        twice = next(one for i, one in enumerate(alphabet) if one in alphabet[:i])
        yield "alphabet", f"{twice!r} stands twice in it", "give each symbol once"
    for symbol in alphabet:
        if symbol != " " and units_of(symbol, unit) != [symbol]:
            kind = "a single character" if unit == "characters" else "a single word"
            yield "alphabet", f"{symbol!r} is not {kind}", f"give the {unit} of transcripts"
        elif symbol == " " and unit == "words":
            yield "alphabet", "a space is no word", "leave it out"


def transcripts_of(
    texts: Sequence[str | None],
    where: Sequence[str],
    *,
    alphabet: Sequence[str] | None,
    unit: Unit = "characters",
    name: str,
) -> tuple[Int32[np.ndarray, "n positions"], Transcripts]:
    """Texts as labels, and what these are of.

    Args:
      texts: one for each example; None and one without a letter is no transcript.
      where: each stands, for messages.
      alphabet: the symbols that there may be, in their order; those of the texts by default, sorted.
      unit: what a symbol is.
      name: of the data, for messages.

    Raises:
      BadInput: the alphabet is none, there is no transcript to take it from, or a symbol is not in it.
    """
    units = [units_of(text or "", unit) for text in texts]
    if alphabet is None:
        alphabet = sorted({symbol for own in units for symbol in own})
        if unseen := next((c for c in sorted({*"".join(alphabet)}) if _is_unseen(c)), None):
            row = next(i for i, own in enumerate(units) if unseen in "".join(own))
            raise BadInput(
                "alphabet",
                f"{unseen!a} of the transcript of {where[row]} cannot be seen",
                "remove it, or give an alphabet that has it",
            )
        if not alphabet:
            raise BadInput("alphabet", f"{name} has no transcript to take it from", "give it")
    for field, fault, *mend in faults_of(alphabet, unit):
        raise BadInput(field, fault, *mend)
    number = {symbol: i for i, symbol in enumerate(alphabet)}
    target = Transcripts(tuple(alphabet), max([1, *map(len, units)]), unit)
    found = target.hidden(len(units))
    for row, own in enumerate(units):
        for symbol in own:
            if symbol not in number:
                raise BadInput(
                    "alphabet",
                    f"{symbol!r} of the transcript of {where[row]} is not one of its {len(alphabet)} "
                    f"{unit}",
                    "add it, or change the transcript",
                )
        found[row, : len(own)] = [number[symbol] for symbol in own]
    return found, target
