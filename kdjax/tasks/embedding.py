"""In which direction of a vector space an example lies."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import numpy as np
from jaxtyping import Array, Float

from kdjax import evaluate, losses, report, teacher
from kdjax.data import Target, Vectors
from kdjax.report import Score
from kdjax.tasks.base import counted
from kdjax.tasks.vectors import OfVectors


@dataclasses.dataclass(frozen=True, kw_only=True)
class Embedding(OfVectors):
    """Which vector an example is paired with, such as the embedding of its caption by another model.

    Answers are vectors of any length: the loss, the score and the agreement are of their directions.
    A target that is hidden is NaN: its loss is zero, and no part of a mean. Scores are of examples that
    have one, and raise where one has none.

    Attributes:
      dim: of the vectors.
    """

    target: ClassVar[type[Target]] = Vectors
    output: ClassVar[str] = "embedding"
    loss: ClassVar[str] = "cosine"
    primary: ClassVar[str] = "cosine"
    losses_of: ClassVar[Mapping[str, str]] = {
        "labels": "1 less the cosine with the target",
        "predictions": "1 less the cosine with what the whole model says",
        "teacher": "1 less the cosine with what the cached teacher says",
    }

    name: Literal["embedding"] = "embedding"
    dim: int

    def of_features(self, width: int) -> dict[str, Any] | None:
        """See `Task`: what an encoder gives is an embedding, if it is as wide."""
        if width != self.dim:
            return None
        return {
            "head": {"kernel": np.eye(width, dtype=np.float32), "bias": np.zeros(width, np.float32)}
        }

    def distance(
        self, answer: Float[Array, "batch dim"], reference: Float[Array, "batch dim"]
    ) -> Float[Array, " batch"]:
        """1 less the cosine."""
        return losses.embedding_cosine(answer, reference)

    def signal(
        self, dtype: str, *, positions: int | None = None
    ) -> teacher.Vector | teacher.Positions:
        """The vector."""
        return teacher.Embedding(dim=self.dim, dtype=dtype)

    def scores(
        self, answers: Float[np.ndarray, "n dim"], labels: Float[np.ndarray, "n dim"]
    ) -> Mapping[str, Score]:
        """The mean cosine of answer and target, with Student's t interval over the examples."""
        counted(np.asarray(Vectors(self.dim).shown(labels)))
        return {"cosine": self.likeness(answers, labels)}

    def likeness(
        self, answers: Float[np.ndarray, "n dim"], reference: Float[np.ndarray, "n dim"]
    ) -> Score:
        """The mean cosine, with Student's t interval over the examples."""
        each = evaluate.cosines(answers, reference)
        found = report.mean_interval(each)
        ends = None if found is None else (max(-1.0, found[0]), min(1.0, found[1]))
        return Score(float(each.mean()), ends, fraction=False)

    def agreement(
        self,
        a: Float[np.ndarray, "n dim"],
        b: Float[np.ndarray, "n dim"],
        labels: Float[np.ndarray, "n dim"] | None = None,
    ) -> evaluate.Agreement:
        """The mean cosine of the two answers."""
        return evaluate.compared(a, b, agreement=float(evaluate.cosines(a, b).mean()))

    def agreed(self, agreement: float) -> str:
        """See `Task`."""
        return f"the vectors agree with a mean cosine of {agreement:.4f}"
