"""Which one of several classes an example is of."""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int

from kdjax import evaluate, losses, models, report, teacher, train
from kdjax.data import Classes, Target
from kdjax.distill import kd_term
from kdjax.report import Score
from kdjax.tasks.base import Softmaxes, Task, VirtualTeacher, _one
from kdjax.types import BadInput


class OfClasses(Task):
    """Answers that are logits, [batch, classes] or of each position; see `Task`."""

    output: ClassVar[str] = "logits"
    loss: ClassVar[str] = "ce"
    primary: ClassVar[str] = "accuracy"
    losses_of: ClassVar[Mapping[str, str]] = {
        "labels": "the cross-entropy with the labels, in nats",
        "predictions": "the KL divergence from what the whole model says, in nats",
        "teacher": "the KL divergence from what the cached teacher says, in nats",
    }

    has_blank: ClassVar[bool] = False
    """Whether the first class is the blank of CTC."""

    classes: int

    @property
    def outputs(self) -> int:
        """The classes."""
        return self.classes

    def classes_of_answer(self, field: str) -> int:
        """How many there are."""
        return self.classes

    def losses(self, outputs: train.Outputs, label: Int[Array, "*batch"]) -> Float[Array, "*batch"]:
        """Cross-entropy, in nats; see `kdjax.losses.cross_entropy`."""
        return losses.cross_entropy(outputs[self.output], label)

    def has_label(self, label: Int[Array, "*batch"]) -> Bool[Array, "*batch"]:
        """See `Task`."""
        return label >= 0

    def distance(
        self, answer: Float[Array, "*batch classes"], reference: Float[Array, "*batch classes"]
    ) -> Float[Array, "*batch"]:
        """KL divergence of the softmaxes, in nats; see `kdjax.losses.kd_kl`."""
        return losses.kd_kl(answer, reference)

    def terms(
        self, *, label_smoothing: float = 0.0, teacher_free: VirtualTeacher | None = None
    ) -> train.Terms:
        """Cross-entropy with the label, and the KL to a virtual teacher where there is one."""

        def ce(outputs, batch):
            label = self.asked(outputs, batch)
            found = losses.cross_entropy(
                outputs[self.output], label, label_smoothing=label_smoothing
            )
            return self.of_all(found, label)

        if teacher_free is None:
            return {self.loss: (1.0, ce)}

        def virtual(outputs, batch):
            label = self.asked(outputs, batch)
            found = losses.tf_kd(
                outputs[self.output],
                label,
                correct_probability=teacher_free.correct_probability,
                temperature=teacher_free.temperature,
            )
            return self.of_all(found, label)

        return {self.loss: (teacher_free.ce_weight, ce), "tf_kd": (teacher_free.weight, virtual)}

    def of_all(self, found: Float[Array, "*batch"], label: Int[Array, "*batch"]) -> train.Losses:
        """Losses of a batch in which every example has a label."""
        return found

    def taught(
        self,
        signal: teacher.Signal,
        softmaxes: Softmaxes,
        *,
        teacher_weights: Float[Array, " teachers"] | None = None,
        axis_name: str | None = None,
    ) -> train.Term:
        """The distance of the softmaxes, see `kdjax.distill.kd_term`.

        Raises:
          BadInput: the loss is of frames that may be blank, and there is no such class.
        """
        if softmaxes.loss.of_blank and not self.has_blank:
            raise BadInput(
                "logits",
                f"{softmaxes.loss.name} is of frames that may be blank, and the task is {self.name}",
                "give kl",
            )
        return kd_term(
            signal,
            temperature=softmaxes.temperature,
            loss=softmaxes.loss,
            standardize=softmaxes.standardize,
            teacher_weights=teacher_weights,
            axis_name=axis_name,
        )

    def together(
        self,
        answers: Float[Array, "batch teachers *positions classes"],
        weights: Float[Array, " teachers"],
    ) -> Float[Array, "batch *positions classes"]:
        """The logarithm of the mean of their probabilities."""
        log_probs = jax.nn.log_softmax(answers, axis=-1)
        shares = jnp.log(weights).reshape(1, -1, *(1,) * (answers.ndim - 2))
        return jax.nn.logsumexp(log_probs + shares, axis=1)

    def misfit(
        self, signal: teacher.Signal, cache: str, *, positions: int | None = None
    ) -> str | None:
        """See `Task`: all logits will do, and the largest of them."""
        of = _one(signal)
        vector = of.of if isinstance(of, teacher.Positions) else of
        if not isinstance(vector, teacher.Logits | teacher.TopK):
            return f"{cache} keeps {teacher.describe(of)}, which says nothing of classes"
        if vector.classes != self.classes:
            return f"the teacher of {cache} has {vector.classes} classes, the student has {self.classes}"
        if isinstance(of, teacher.Positions):
            of = dataclasses.replace(of, hidden=False)
        if of != self.each(vector, positions=positions):
            return f"the teacher of {cache} does not answer what is asked of {self.name}"
        return None

    def check_accuracy(self, field: str) -> None:
        """Refuses nothing."""

    def accuracy(
        self, answers: Float[np.ndarray, "*n classes"], labels: Int[np.ndarray, "*n"]
    ) -> float | None:
        """That of the scores."""
        return self.scores(answers, labels)["accuracy"].value

    def agreed(self, agreement: float) -> str:
        """See `Task`."""
        return f"{agreement:.1%} of the labels agree"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Classification(OfClasses):
    """Which one of several classes an example is of.

    Attributes:
      classes: how many.
    """

    target: ClassVar[type[Target]] = Classes

    name: Literal["classification"] = "classification"
    classes: int

    @classmethod
    def of(cls, target: Classes) -> "Classification":
        """See `Task`."""
        return cls(classes=target.classes)

    def classes_of_example(self, field: str) -> int:
        """How many there are."""
        return self.classes

    def head(self, encoder: nn.Module) -> nn.Module:
        """The model: `features` [batch, dim] of the encoder, and `logits` [batch, classes] on them."""
        return models.Classifier(encoder, self.classes)

    def signal(
        self, dtype: str, *, positions: int | None = None
    ) -> teacher.Vector | teacher.Positions:
        """All logits."""
        return teacher.Logits(classes=self.classes, dtype=dtype)

    def made_up(self, examples: int) -> Float32[np.ndarray, "n classes"]:
        """Answers that may occur, always the same ones."""
        random = np.random.default_rng(0)
        return random.normal(size=(examples, self.classes)).astype(np.float32)

    def scores(
        self, answers: Float[np.ndarray, "n classes"], labels: Int[np.ndarray, " n"]
    ) -> Mapping[str, Score]:
        """What logits of labelled examples are worth; of two classes the second one is the positive."""
        predicted = answers.argmax(-1)
        counts = evaluate.confusion(labels, predicted, classes=self.classes)
        found = evaluate.scores(counts)
        said = {
            "accuracy": Score(found.accuracy, report.wilson(found.accuracy, found.examples)),
            "recall_macro": Score(found.recall_macro),
            "f1_macro": Score(found.f1_macro),
        }
        if self.classes == 2:
            said["f1_positive"] = Score(evaluate.f1(predicted == 1, labels == 1))
            said["matthews"] = Score(evaluate.matthews(counts), fraction=False)
        return said

    def agreement(
        self,
        a: Float[np.ndarray, "n classes"],
        b: Float[np.ndarray, "n classes"],
        labels: Int[np.ndarray, " n"] | None = None,
    ) -> evaluate.Agreement:
        """Share of the examples that get one label from both."""
        return evaluate.agreement(a, b)

    def likeness(
        self, answers: Float[np.ndarray, "n classes"], reference: Float[np.ndarray, "n classes"]
    ) -> Score:
        """The share, with Wilson's interval."""
        share = self.agreement(answers, reference).agreement
        return Score(share, report.wilson(share, len(answers)))

    def accuracy(
        self, answers: Float[np.ndarray, "n classes"], labels: Int[np.ndarray, " n"]
    ) -> float | None:
        """That of the scores; None where an example has no label."""
        return None if (labels < 0).any() else super().accuracy(answers, labels)
