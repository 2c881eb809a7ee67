"""What is said in a recording: the symbols of an alphabet in their order, without their times."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int

from kdjax import evaluate, losses, models, report, spelling, teacher, train
from kdjax.data import Target, Transcripts
from kdjax.data.transcripts import Unit, text_of
from kdjax.report import Score
from kdjax.tasks.base import VirtualTeacher, counted
from kdjax.tasks.classification import OfClasses
from kdjax.tasks.positions import OfPositions

BLANK_NAME = "<blank>"
"""Of the first class, beside the names of the symbols."""

_BEHIND = -20.0
"""Logit of every symbol behind the end of an example; that of the blank is 0: it has all but 2e-9 a
symbol of the probability, and no output is larger for it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class CTC(OfPositions):
    """Which symbols a recording says: logits of the blank and of each symbol at every frame.

    Class 0 is the blank, as in PyTorch and optax; symbol `i` is class `i + 1`. The encoder gives features
    of frames, and the mask of those that are no padding. Behind it the head says blank, so that an
    answer is whole without its mask: it is decoded as it is.

    Attributes:
      alphabet: the symbols, without the blank.
      unit: see `kdjax.data.Transcripts`.

    Reference: Graves et al. 2006, https://doi.org/10.1145/1143844.1143891.
    """

    target: ClassVar[type[Target]] = Transcripts
    loss: ClassVar[str] = "ctc"
    primary: ClassVar[str] = "wer"
    features: ClassVar[tuple[str, ...]] = ("batch", "frames", "dim")
    has_blank: ClassVar[bool] = True
    losses_of: ClassVar[Mapping[str, str]] = {
        **OfClasses.losses_of,
        "labels": "the CTC loss with the transcripts, in nats",
    }

    name: Literal["ctc"] = "ctc"
    alphabet: tuple[str, ...]
    unit: Unit = "characters"

    @classmethod
    def of(cls, target: Transcripts) -> "CTC":
        """See `Task`."""
        return cls(alphabet=target.alphabet, unit=target.unit)

    @property
    def classes(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The symbols and the blank."""
        return len(self.alphabet) + 1

    def names(self, target: Target) -> tuple[str, ...]:
        """The blank's and those of the symbols."""
        return (BLANK_NAME, *self.alphabet)

    def head(self, encoder: nn.Module) -> nn.Module:
        """The model: `features` [batch, frames, dim], `logits` [..., classes], maybe `mask`."""
        return models.Linear(encoder, self.classes, self.output, behind=self.behind)

    @property
    def behind(self) -> tuple[float, ...]:
        """Blank."""
        return (0.0, *(_BEHIND,) * len(self.alphabet))

    def made_up(self, examples: int) -> Float32[np.ndarray, "n frames classes"]:
        """Answers that may occur, always the same ones."""
        random = np.random.default_rng(0)
        return random.normal(size=(examples, 16, self.classes)).astype(np.float32)

    # Losses.

    def losses(
        self, outputs: train.Outputs, label: Int[Array, "batch most"]
    ) -> Float[Array, " batch"]:
        """`kdjax.losses.ctc`, in nats: infinite of a transcript without a path, zero without one."""
        found = losses.ctc(outputs[self.output], label, outputs.get("mask"))
        return jnp.where(self.has_label(label), found, 0.0)

    def has_label(self, label: Int[Array, "batch most"]) -> Bool[Array, " batch"]:
        """See `Task`."""
        return (label >= 0).any(-1)

    def least_positions(self, labels: Int[np.ndarray, "n most"]) -> Int[np.ndarray, " n"] | None:
        """Frames of the shortest path, see `kdjax.losses.least_frames`."""
        return np.asarray(losses.least_frames(jnp.asarray(labels)))

    def label_text(self, label: Int[np.ndarray, " most"]) -> str:
        """The transcript, or as much of it as a line takes."""
        return spelling.cut(self._text(label))

    def _text(self, label: Int[np.ndarray, " most"]) -> str:
        return text_of([int(i) for i in label if i >= 0], self.alphabet, self.unit)

    def terms(
        self, *, label_smoothing: float = 0.0, teacher_free: VirtualTeacher | None = None
    ) -> train.Terms:
        """The CTC loss; it has no class of which a label could be smoothed."""
        if label_smoothing:
            self._refuse("label_smoothing", "a class at each position")
        if teacher_free is not None:
            self._refuse("teacher_free", "a class at each position")
        return {self.loss: (1.0, self.supervised)}

    # What a teacher says.

    def each(
        self, of: teacher.Vector, *, positions: int | None = None
    ) -> teacher.Vector | teacher.Positions:
        """The same of each frame."""
        assert positions is not None
        return teacher.Positions(of=of, most=positions)

    def misfit(
        self, signal: teacher.Signal, cache: str, *, positions: int | None = None
    ) -> str | None:
        """See `Task`: a student has as many frames as its teacher."""
        if isinstance(signal, teacher.Positions) and signal.most != positions:
            return (
                f"the teacher of {cache} answers at {signal.most} frames of the longest recording, and "
                f"the student at {positions}: give both one hop and one stride"
            )
        return super().misfit(signal, cache, positions=positions)

    # What answers are worth.

    def transcribed(self, answers: Float[np.ndarray, "n frames classes"]) -> list[str]:
        """What answers say, by the likeliest path of each; see also `kdjax.evaluate.prefix_beam`."""
        return [
            text_of([c - 1 for c in path], self.alphabet, self.unit)
            for path in evaluate.greedy(answers, blank=losses.BLANK)
        ]

    def scores(
        self, answers: Float[np.ndarray, "n frames classes"], labels: Int[np.ndarray, "n most"]
    ) -> Mapping[str, Score]:
        """Word and character error rate of the likeliest paths, and what the former is the sum of.

        All edits of a test set over all of its words, or characters; above 1 where more is inserted than
        was said. Words stand between spaces; characters are those of the words and of single spaces
        between them. Intervals are those of a ratio of sums over examples.

        Reference: Cochran 1977, Sampling Techniques, 3rd ed., ch. 6: the ratio estimator.
        """
        counted(np.asarray((labels >= 0).any(-1)))
        said = [self._text(row) for row in labels]
        heard = self.transcribed(answers)
        words = _Edits.of(said, heard, evaluate.words)
        characters = _Edits.of(said, heard, evaluate.characters)
        return {
            "wer": words.rate(lambda one: one.total),
            "cer": characters.rate(lambda one: one.total),
            "insertions": words.rate(lambda one: one.insertions),
            "deletions": words.rate(lambda one: one.deletions),
            "substitutions": words.rate(lambda one: one.substitutions),
        }

    def accuracy(
        self, answers: Float[np.ndarray, "n frames classes"], labels: Int[np.ndarray, "n most"]
    ) -> float | None:
        """There is none: a transcript is more or less right."""
        return None

    def check_accuracy(self, field: str) -> None:
        """See `Task`."""
        self._refuse(field, "a class of each example or position")

    def agreement(
        self,
        a: Float[np.ndarray, "n frames classes"],
        b: Float[np.ndarray, "n frames classes"],
        labels: Int[np.ndarray, "n most"] | None = None,
    ) -> evaluate.Agreement:
        """1 less the edits from the symbols of `b` to those of `a`, over the former; 0 at least."""
        theirs, ours = (evaluate.greedy(x, blank=losses.BLANK) for x in (b, a))
        pairs = zip(theirs, ours, strict=True)
        apart, said = sum(evaluate.edits(*pair).total for pair in pairs), sum(map(len, theirs))
        share = 1.0 - apart / said if said else float(apart == 0)
        return evaluate.compared(a, b, agreement=max(0.0, share))

    def agreed(self, agreement: float) -> str:
        """See `Task`."""
        return f"{agreement:.1%} of the symbols agree"


@dataclasses.dataclass(frozen=True)
class _Edits:
    """Of each example, and of how many units it is."""

    each: list[evaluate.Edits]
    units: Int[np.ndarray, " n"]

    @classmethod
    def of(cls, said: list[str], heard: list[str], cut: Any) -> "_Edits":
        """Of texts that are cut into units."""
        pairs = [(cut(a), cut(b)) for a, b in zip(said, heard, strict=True)]
        return cls(
            [evaluate.edits(*pair) for pair in pairs], np.asarray([len(a) for a, _ in pairs])
        )

    def rate(self, count: Any) -> Score:
        """An error rate with its interval."""
        counts = np.asarray([count(one) for one in self.each])
        ends = report.ratio_interval(counts, self.units, most=np.inf)
        rate = float(counts.sum() / self.units.sum())
        return Score(rate, ends, higher_is_better=False)
