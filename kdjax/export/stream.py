"""A model that is given an example in pieces: what a file of it takes, gives, and says of itself."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float

from kdjax import quant
from kdjax.types import Field, Variables

PIECE = "piece"
"""Name of the number of positions of a piece."""

_STEPS = 16
"""That `in_pieces` takes at a time."""


Forward = Callable[[Variables, Array, Mapping[str, Array]], tuple[Array, Mapping[str, Array]]]
"""See `Stream.forward`."""


class Framing(NamedTuple):
    """How the answers of a model lie over what it is given.

    Attributes:
      frame: positions that each answer looks at anew, such as samples.
      hop: from one answer to the next.
      before: zeros that stand before an example.
      behind: zeros that stand behind it, for its last answers.
      centred: whether those behind count for the number of its answers; else they are there for an
        example that is shorter than a frame.
    """

    frame: int = 1
    hop: int = 1
    before: int = 0
    behind: int = 0
    centred: bool = False

    def answers(self, positions: Any) -> Any:
        """How many an example of so many positions has, at least 1."""
        whole = positions + self.before + (self.behind if self.centred else 0)
        return np.maximum(1 + (whole - self.frame) // self.hop, 1)

    @property
    def least(self) -> int:
        """Positions that a piece has at least."""
        return max(self.frame - self.before, self.hop)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stream:
    """A model for pieces of one input, in float.

    Attributes:
      forward: `(variables, piece [batch, positions, ...], state) -> (answers, state)`, where answers are
        [batch, answers, ...] and a state is arrays by name; see `kdjax.models.streaming`.
      variables: of `forward`.
      field: name of the input.
      whole: of an example that is not in pieces.
      state: what is kept from piece to piece, of one example, all zeros at first; what is kept of the
        input itself is not among it.
      framing: of the answers.
      last: the answer to an example is that at its last position, and not those at all.
      padding: the answer at positions behind the end of an example; empty where that is not asked for.
      rules: of the layers that are quantized, see `kdjax.export.Model`.
      ranges: likewise.
    """

    forward: Forward
    variables: Variables
    field: str
    whole: Field
    state: Mapping[str, Field]
    framing: Framing
    last: bool
    padding: tuple[float, ...] = ()
    rules: Mapping[str, quant.Rule] = dataclasses.field(default_factory=dict)
    ranges: Mapping[str, Float[Any, "..."]] = dataclasses.field(default_factory=dict)

    def predict(self, piece: Array, *state: Array) -> tuple[Array, ...]:
        """The answers to a piece that what is kept of the input stands before, and the new state.

        Args:
          piece: the positions.
          *state: in the order of `self.state`.
        """
        found, after = self.forward(
            self.variables, piece, dict(zip(self.state, state, strict=True))
        )
        return found, *(after[name] for name in self.state)

    def arrays(self, batch: Any, positions: Any) -> list[jax.ShapeDtypeStruct]:
        """The shapes that `predict` is given; both numbers may be symbolic."""
        piece = dataclasses.replace(self.whole, ragged=True).batch(batch, positions)
        return [piece, *(field.batch(batch) for field in self.state.values())]

    @property
    def kept(self) -> str | None:
        """What is kept of the input itself, by name: none where each answer looks at one position."""
        return f"{self.field}_kept" if self.framing.frame > 1 else None

    @property
    def plan(self) -> quant.Plan:
        """What a file that stores integers is to have."""

        def function(variables: Variables, piece: Array, *state: Array) -> Array:
            given = dict(zip(self.state, state, strict=True))
            return self.forward(variables, piece, given)[0]

        arrays = self.arrays(1, 4 * self.framing.hop + self.framing.frame)
        return quant.plan_of(
            function, self.variables, *arrays, rules=self.rules, ranges=self.ranges
        )

    @property
    def said(self) -> dict[str, Any]:
        """What a file says of itself, as JSON has it."""
        return {
            "input": self.field,
            "kept": self.kept,
            **self.framing._asdict(),
            "least": self.framing.least,
            "last": self.last,
            "padding": self.padding,
            "ragged": self.whole.ragged,
            "state": {name: [field.shape, field.dtype] for name, field in self.state.items()},
        }

    def cases(self, batch: int) -> list[dict[str, np.ndarray]]:
        """Pieces to try a file on, by name: the first of an example, and one behind it."""
        least, hop = self.framing.least + self.framing.before, self.framing.hop
        state, found = [np.zeros((batch, *f.shape), f.dtype) for f in self.state.values()], []
        for seed, length in enumerate((least + 5 * hop, least + 2 * hop + hop // 2)):
            shape = (length, *self.whole.shape[1:])
            one = dataclasses.replace(self.whole, shape=shape).made_up(batch, seed=seed)
            found.append(dict(zip((self.field, *self.state), (one, *state), strict=True)))
            _, *state = (np.asarray(x) for x in jax.jit(self.predict)(one, *state))
        return found


Step = Callable[[np.ndarray, Sequence[np.ndarray]], Sequence[np.ndarray]]
"""`(piece, state) -> (answers, *state)`; what is kept of the input, if anything, comes first."""


def in_pieces(
    step: Step, said: Mapping[str, Any], *inputs: np.ndarray
) -> Float[np.ndarray, "batch ..."]:
    """The answers of a file to whole examples that it is given in pieces, as the model itself answers.

    Args:
      step: a call of the file.
      said: see `Stream.said`.
      *inputs: the input, and its lengths where examples have their own.
    """
    whole, *lengths = inputs
    framing = Framing(*(said[name] for name in Framing._fields))
    rows, positions = whole.shape[:2]

    def zeros(count: int) -> np.ndarray:
        return np.zeros((rows, count, *whole.shape[2:]), whole.dtype)

    padded = np.concatenate([whole, zeros(framing.behind)], axis=1)
    most = padded.shape[1]
    state = [np.zeros((rows, *shape), dtype) for shape, dtype in said["state"].values()]
    if said["kept"]:
        state = [zeros(framing.before), *state]
    # The last piece has what would be too short for one of its own.
    size = max(_STEPS * framing.hop, framing.least)
    ends = [*range(size, most - framing.least + 1, size), most]
    found, begin = [], 0
    for end in ends:
        answers, *state = step(padded[:, begin:end], state)
        found.append(np.asarray(answers))
        begin = end
    answers = np.concatenate(found, axis=1)
    of = lengths[0] if lengths else np.full(rows, positions)
    counts = np.minimum(framing.answers(np.asarray(of)), answers.shape[1])
    if said["last"]:
        return answers[np.arange(rows), counts - 1]
    if lengths and said["padding"]:
        behind = np.arange(answers.shape[1]) >= counts[:, None]
        answers[behind] = np.asarray(said["padding"], answers.dtype)
    return answers
