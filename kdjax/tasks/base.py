"""What every task has."""

import abc
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple, NoReturn, Protocol, runtime_checkable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Shaped

from kdjax import evaluate, spelling, teacher, train
from kdjax.choice import Choice
from kdjax.data import Target
from kdjax.distill import LogitLoss, Scalar
from kdjax.report import Score
from kdjax.types import BadInput, Batch

Answers = Float[np.ndarray, "n ..."]
"""Of several examples, on the host: what a file of the model gives."""


class Softmaxes(NamedTuple):
    """How a student's softmax is held against its teacher's, where a task has them.

    Attributes:
      temperature: of both.
      loss: how they are compared.
      standardize: both logits before that.
    """

    temperature: Scalar
    loss: LogitLoss
    standardize: bool = False


@runtime_checkable
class VirtualTeacher(Protocol):
    """A teacher made of the label alone, see `kdjax.losses.tf_kd`; `kdjax.config.TeacherFree` is one."""

    @property
    def correct_probability(self) -> float:
        """That it gives the label."""
        ...

    @property
    def temperature(self) -> float:
        """Of both softmaxes."""
        ...

    @property
    def weight(self) -> float:
        """Of the KL to it."""
        ...

    @property
    def ce_weight(self) -> float:
        """Of the cross-entropy with the label."""
        ...


class Task(Choice, abc.ABC):
    """What a model is asked; see `kdjax.tasks`.

    Attributes:
      target: the class of the targets that it is asked with.
      output: of the head's outputs, the one that a file gives and by which two models are compared.
      loss: name of the supervised term.
      primary: of the scores, the one by which two models are compared.
      losses_of: what a sensitivity is measured in, by what the model is held against.
      features: shape of an encoder's features, for messages: its axes are counted.
    """

    target: ClassVar[type[Target]]
    output: ClassVar[str]
    loss: ClassVar[str]
    primary: ClassVar[str]
    losses_of: ClassVar[Mapping[str, str]]
    features: ClassVar[tuple[str, ...]] = ("batch", "dim")

    @classmethod
    @abc.abstractmethod
    def of(cls, target: Any) -> "Task":
        """The task of labels of such a target."""

    @property
    @abc.abstractmethod
    def outputs(self) -> int:
        """Numbers that an answer has, at each of its positions where it has some."""

    @abc.abstractmethod
    def head(self, encoder: nn.Module) -> nn.Module:
        """The model: gives a dict of `features`, of its answer as `output`, and of more."""

    @abc.abstractmethod
    def made_up(self, examples: int) -> Answers:
        """Answers that may occur, always the same ones."""

    @property
    def behind(self) -> tuple[float, ...]:
        """The answer behind the end of an example, which `head` gives; empty where it may be anything."""
        return ()

    def of_features(self, width: int) -> dict[str, Any] | None:
        """The parameters of a head that answers with the features as they are; None where none does.

        Args:
          width: of the features.
        """
        return None

    # Losses.

    @abc.abstractmethod
    def losses(
        self, outputs: train.Outputs, label: Shaped[Array, "batch ..."]
    ) -> Float[Array, "batch ..."]:
        """Of each example, or of each of its positions; finite where there is no label."""

    @abc.abstractmethod
    def has_label(self, label: Shaped[Array, "batch ..."]) -> Bool[Array, "batch ..."]:
        """Of which losses there is a label."""

    @abc.abstractmethod
    def distance(
        self, answer: Float[Array, "batch ..."], reference: Float[Array, "batch ..."]
    ) -> Float[Array, "batch ..."]:
        """Loss of one model's answer against another one's, which gets no gradient."""

    def fitted(
        self, outputs: train.Outputs, label: Shaped[Array, "batch ..."]
    ) -> Shaped[Array, "batch ..."]:
        """The label as far as the answer goes: a batch has no more positions than its longest example."""
        return label

    def asked(self, outputs: train.Outputs, batch: Batch) -> Shaped[Array, "batch ..."]:
        """The labels of a batch that are learned, as far as the answer goes."""
        return self.fitted(outputs, batch["label"])

    def judged(
        self, answers: Shaped[Any, "batch ..."], batch: Mapping[str, Any]
    ) -> Shaped[Any, "batch ..."]:
        """What of answers is scored and compared on the host: by default all of it.

        Args:
          answers: of a model, or of a file of it.
          batch: the raw inputs that they are of.
        """
        return answers

    def supervised(self, outputs: train.Outputs, batch: Batch) -> train.Losses:
        """The losses of a batch in which every example has a label, see `train.Term`."""
        return self.losses(outputs, self.asked(outputs, batch))

    def labelled(self, outputs: train.Outputs, batch: Batch) -> tuple[Array, Array]:
        """The losses, and which have a label; of mixed examples with both labels, in their shares."""
        label = self.asked(outputs, batch)
        found, shown = self.losses(outputs, label), self.has_label(label)
        if "weight" not in batch:
            return found, shown
        other = self.fitted(outputs, batch["partner_label"])
        weight = batch["weight"].reshape(-1, *(1,) * (found.ndim - 1))
        found = jnp.concatenate([found, self.losses(outputs, other)])
        return found, jnp.concatenate([weight * shown, (1.0 - weight) * self.has_label(other)])

    def least_positions(self, labels: Shaped[np.ndarray, "n ..."]) -> Int[np.ndarray, " n"] | None:
        """At how many positions a model must answer for each label to be learned; None for any number."""
        return None

    def label_text(self, label: Shaped[np.ndarray, "..."]) -> str:
        """One label in words, for messages."""
        return spelling.cut(label.tolist())

    def terms(
        self, *, label_smoothing: float = 0.0, teacher_free: VirtualTeacher | None = None
    ) -> train.Terms:
        """The loss where every example has a label.

        Args:
          label_smoothing: see `kdjax.losses.cross_entropy`.
          teacher_free: see `kdjax.losses.tf_kd`.

        Raises:
          BadInput: one of them is given, and the labels are no classes.
        """
        if label_smoothing:
            self.classes_of_answer("label_smoothing")
        if teacher_free is not None:
            self.classes_of_answer("teacher_free")
        return {self.loss: (1.0, self.supervised)}

    # What a teacher says.

    @abc.abstractmethod
    def signal(
        self, dtype: str, *, positions: int | None = None
    ) -> teacher.Vector | teacher.Positions:
        """What a cache keeps of an answer, where nothing else is said: all of it.

        Args:
          dtype: stored.
          positions: that the teacher answers at, of the longest example; None where it answers once.
        """

    def each(
        self, of: teacher.Vector, *, positions: int | None = None
    ) -> teacher.Vector | teacher.Positions:
        """What a cache keeps of an answer of which `of` is kept of one vector of outputs."""
        return of

    def together(
        self, answers: Float[Array, "batch teachers ..."], weights: Float[Array, " teachers"]
    ) -> Float[Array, "batch ..."]:
        """The weighted mean of several teachers' answers."""
        return jnp.tensordot(answers, weights, axes=(1, 0))

    def misfit(
        self, signal: teacher.Signal, cache: str, *, positions: int | None = None
    ) -> str | None:
        """Why a student of this task cannot learn a signal, None where it can.

        Args:
          signal: that is kept.
          cache: the name of its cache, for messages.
          positions: that the student answers at, of the longest example; None where it answers once.
        """
        of = _one(signal)
        wanted = self.signal(getattr(of, "dtype", "float32"), positions=positions)
        if of == wanted:
            return None
        return f"{cache} keeps {teacher.describe(of)}, and {self.name} learns {teacher.describe(wanted)}"

    def taught(
        self,
        signal: teacher.Signal,
        softmaxes: Softmaxes,
        *,
        teacher_weights: Float[Array, " teachers"] | None = None,
        axis_name: str | None = None,
    ) -> train.Term:
        """What a student learns from its teacher: by default to answer as it does, by `distance`.

        Args:
          signal: that a batch has the parts of.
          softmaxes: how they are compared, where there are any.
          teacher_weights: of teachers that are kept apart: the weighted sum of their losses.
          axis_name: mapped axis of the batch.

        Raises:
          BadInput: the signal and the loss do not go together; the line begins with the field.
        """
        (part,) = signal.parts()

        def term(outputs, batch):
            answer, said = outputs[self.output], batch[part]
            if teacher_weights is None:
                return self.distance(answer, said)
            each = jax.vmap(lambda mine: self.distance(answer, mine), in_axes=1)(said)
            return (teacher_weights[:, None] * each).sum(0)

        return term

    # What answers are worth.

    @abc.abstractmethod
    def scores(self, answers: Answers, labels: Shaped[np.ndarray, "n ..."]) -> Mapping[str, Score]:
        """What answers to labelled examples are worth.

        Raises:
          ValueError: an example has no label: leave such out first.
        """

    @abc.abstractmethod
    def agreement(
        self, a: Answers, b: Answers, labels: Shaped[np.ndarray, "n ..."] | None = None
    ) -> evaluate.Agreement:
        """How near the answers of two models are, `b` those of the one that is the measure.

        Args:
          a: answers to some examples.
          b: answers to the same examples.
          labels: of them, where they say which positions count.
        """

    def likeness(self, answers: Answers, reference: Answers) -> Score:
        """The agreement of one model's answers with another's as a score, with its interval if known."""
        found = self.agreement(answers, reference)
        return Score(found.agreement, fraction=False)

    @abc.abstractmethod
    def agreed(self, agreement: float) -> str:
        """An agreement in words, such as `97.0% of the labels agree`."""

    def names(self, target: Target) -> tuple[str, ...]:
        """What the outputs of an answer are called, where the data say it; else none."""
        names = getattr(target, "names", ())
        return names if len(names) == self.outputs else ()

    # What it may not have.

    def classes_of_example(self, field: str) -> int:
        """How many classes there are of which an example has one.

        Raises:
          BadInput: it has none, or several; the line names `field`, which asked.
        """
        self._refuse(field, "one class an example")

    def classes_of_answer(self, field: str) -> int:
        """How many classes the softmax of an answer has.

        Raises:
          BadInput: an answer has no softmax; the line names `field`, which asked.
        """
        self._refuse(field, "classes")

    def check_accuracy(self, field: str) -> None:
        """Refuses a limit on the accuracy of a task that has none.

        Raises:
          BadInput: that is so; the line names `field`.
        """
        self._refuse(field, "classes")

    def accuracy(self, answers: Answers, labels: Shaped[np.ndarray, "n ..."]) -> float | None:
        """Share of the answers that are right; None of a task that has no right and wrong."""
        return None

    def _refuse(self, field: str, needed: str) -> NoReturn:
        raise BadInput(field, f"it needs {needed}, and the task is {self.name}", "leave it out")


def _one(signal: teacher.Signal) -> teacher.Signal:
    """That of one teacher."""
    return signal.of if isinstance(signal, teacher.Apart) else signal


def counted(shown: Bool[np.ndarray, " n"]) -> None:
    """Raises ValueError where an example that is to be scored has no label."""
    if not len(shown):
        raise ValueError("no examples to score")
    if not shown.all():
        raise ValueError(f"example {np.flatnonzero(~shown)[0]} has no label to be scored by")
