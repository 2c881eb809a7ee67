"""Which of several classes an example is of, any number of them."""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from kdjax import evaluate, losses, report, teacher, train
from kdjax.data import Several, Target
from kdjax.report import Score
from kdjax.tasks.base import Softmaxes, counted
from kdjax.tasks.vectors import OfVectors


@dataclasses.dataclass(frozen=True, kw_only=True)
class SeveralLabels(OfVectors):
    """Which of several classes an example is of: a logit each, and those above zero are the answer.

    Attributes:
      dim: how many classes there are.
    """

    target: ClassVar[type[Target]] = Several
    output: ClassVar[str] = "logits"
    loss: ClassVar[str] = "bce"
    primary: ClassVar[str] = "f1_micro"
    losses_of: ClassVar[Mapping[str, str]] = {
        "labels": "the binary cross-entropy with the labels, in nats a class",
        "predictions": "the KL divergence from what the whole model says, in nats a class",
        "teacher": "the KL divergence from what the cached teacher says, in nats a class",
    }

    name: Literal["several_labels"] = "several_labels"
    dim: int

    def losses(
        self, outputs: train.Outputs, label: Float[Array, "batch dim"]
    ) -> Float[Array, " batch"]:
        """Binary cross-entropy, zero where the label is NaN; see `kdjax.losses.binary_cross_entropy`."""
        known = self.has_label(label)
        label = jnp.where(known[:, None], label, 0.0)
        found = losses.binary_cross_entropy(outputs[self.output], label)
        return jnp.where(known, found, 0.0)

    def distance(
        self, answer: Float[Array, "batch dim"], reference: Float[Array, "batch dim"]
    ) -> Float[Array, " batch"]:
        """KL divergence of the sigmoids, in nats a class; see `kdjax.losses.binary_kl`."""
        return losses.binary_kl(answer, reference)

    def taught(
        self,
        signal: teacher.Signal,
        softmaxes: Softmaxes,
        *,
        teacher_weights: Float[Array, " teachers"] | None = None,
        axis_name: str | None = None,
    ) -> train.Term:
        """The distance of the sigmoids at the temperature, whatever the loss of softmaxes is."""
        (part,) = signal.parts()

        def term(outputs, batch):
            answer, said = outputs[self.output], batch[part]

            def of_one(one: Array) -> Array:
                return losses.binary_kl(answer, one, temperature=softmaxes.temperature)

            if teacher_weights is None:
                return of_one(said)
            each = jax.vmap(of_one, in_axes=1)(said)
            return (teacher_weights[:, None] * each).sum(0)

        return term

    def signal(
        self, dtype: str, *, positions: int | None = None
    ) -> teacher.Vector | teacher.Positions:
        """The logits."""
        return teacher.Values(dim=self.dim, dtype=dtype)

    def scores(
        self, answers: Float[np.ndarray, "n dim"], labels: Float[np.ndarray, "n dim"]
    ) -> Mapping[str, Score]:
        """F1 of all decisions, and as the mean over classes; the share that is right in every class."""
        counted(np.asarray(Several(self.dim).shown(labels)))
        said, right = answers > 0, labels > 0
        exact = float((said == right).all(-1).mean())
        each = [evaluate.f1(own, wanted) for own, wanted in zip(said.T, right.T, strict=True)]
        return {
            "f1_micro": Score(evaluate.f1(said.ravel(), right.ravel())),
            "f1_macro": Score(float(np.mean(each))),
            "exact": Score(exact, report.wilson(exact, len(labels))),
        }

    def agreement(
        self,
        a: Float[np.ndarray, "n dim"],
        b: Float[np.ndarray, "n dim"],
        labels: Float[np.ndarray, "n dim"] | None = None,
    ) -> evaluate.Agreement:
        """Share of the decisions, one a class and example, that are the same."""
        return evaluate.compared(a, b, agreement=float(((a > 0) == (b > 0)).mean()))

    def agreed(self, agreement: float) -> str:
        """See `Task`."""
        return f"{agreement:.1%} of the decisions agree"
