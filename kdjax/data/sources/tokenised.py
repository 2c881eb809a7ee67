"""Texts as integers, and what is kept of them."""

import dataclasses
import json
from collections.abc import Collection, Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int, UInt8

from kdjax.data.several import Several
from kdjax.data.targets import Classes, Target, Values
from kdjax.data.unlabelled import Unlabelled
from kdjax.files import from_json

_KINDS: Mapping[str, type[Target]] = {
    kind.__name__: kind for kind in (Classes, Several, Values, Unlabelled)
}


class Tokens(NamedTuple):
    """Texts as integers.

    Attributes:
      values: of each text, or of each pair of them.
      second: where the second one of each pair begins; None of single texts.
      cut: which texts were longer than they may be.
    """

    values: list[np.ndarray]
    second: np.ndarray | None
    cut: Bool[np.ndarray, " n"]

    def of(self, rows: Int[np.ndarray, " m"]) -> "Tokens":
        """Those of some texts."""
        second = None if self.second is None else self.second[rows]
        return Tokens([self.values[int(row)] for row in rows], second, self.cut[rows])

    def without(self, empty: Collection[int]) -> Bool[np.ndarray, " n"]:
        """Which texts, or pairs with such a text, have nothing but these tokens."""
        said = ~np.isin(np.concatenate(self.values), [*empty])
        count = np.concatenate([[0], np.cumsum(said)])
        ends = np.cumsum([len(own) for own in self.values])
        begins = np.concatenate([[0], ends[:-1]])
        if self.second is None:
            return count[ends] == count[begins]
        middle = begins + self.second
        return (count[middle] == count[begins]) | (count[ends] == count[middle])


class Tokenised(NamedTuple):
    """What is kept of texts.

    Attributes:
      values: their tokens, one text after another.
      ends: where each ends there.
      second: see `Tokens`; empty of single texts.
      hashes: of the texts.
      labels: one each.
      target: what they are of.
      splits: rows of each split, as they lie.
      below: one more than the largest number of a token.
      notes: what is to be said of them.
    """

    values: np.ndarray
    ends: np.ndarray
    second: np.ndarray
    hashes: UInt8[np.ndarray, "n 32"]
    labels: np.ndarray
    target: Target
    splits: Mapping[str, np.ndarray]
    below: int
    notes: tuple[str, ...]

    def plain(self) -> dict[str, np.ndarray]:
        """As arrays."""
        said = {
            "target": [type(self.target).__name__, dataclasses.asdict(self.target)],  # pyright: ignore
            "splits": [*self.splits],
            "below": self.below,
            "notes": self.notes,
        }
        arrays = {n: getattr(self, n) for n in ("values", "ends", "second", "hashes", "labels")}
        arrays |= {f"rows {i}": rows for i, rows in enumerate(self.splits.values())}
        return {**arrays, "said": np.frombuffer(json.dumps(said).encode(), np.uint8)}

    @classmethod
    def of_plain(cls, arrays: Mapping[str, np.ndarray]) -> "Tokenised":
        """Of what `plain` gave."""
        said = from_json(arrays["said"].tobytes())
        kind, fields = said["target"]
        fields = {n: tuple(v) if isinstance(v, list) else v for n, v in fields.items()}
        return cls(
            **{n: arrays[n] for n in ("values", "ends", "second", "hashes", "labels")},
            target=_KINDS[kind](**fields),
            splits={name: arrays[f"rows {i}"] for i, name in enumerate(said["splits"])},
            below=said["below"],
            notes=tuple(said["notes"]),
        )
