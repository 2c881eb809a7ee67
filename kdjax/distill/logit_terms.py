"""The terms of a student's loss that its teacher's and its own logits give."""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from kdjax import losses, teacher, train
from kdjax.types import BadInput, Batch
from kdjax.views import draws

Scalar = float | Float[Array, ""]
Compare = Callable[[Array, Array, Batch], Array]
"""`(student logits, teacher logits, batch) -> losses` [batch], or a scalar."""

_OfParts = Callable[[Array, Mapping[str, Array], Batch], Array]
"""`(student logits, parts of the signal of one teacher, batch) -> losses` [batch], or a scalar."""


@runtime_checkable
class LogitLoss(Protocol):
    """How logits are compared; `kdjax.config.LogitLoss` is one."""

    takes_top_k: ClassVar[bool]
    at_positions: ClassVar[bool]
    of_blank: ClassVar[bool]

    @property
    def name(self) -> Any:
        """As messages have it."""
        ...

    @property
    def delay(self) -> int:
        """Positions by which the student answers later than its teacher."""
        ...

    def between(self, temperature: Scalar, axis_name: str | None) -> Compare:
        """See `kdjax.config.LogitLoss`."""
        ...

    def rows(self, batch: Batch) -> Bool[Array, "batch ..."] | None:
        """Which rows it concerns, None for all."""
        ...


def kd_term(
    signal: teacher.Signal,
    *,
    temperature: Scalar,
    loss: LogitLoss,
    standardize: bool = False,
    teacher_weights: Float[Array, " teachers"] | None = None,
    axis_name: str | None = None,
) -> Callable[[train.Outputs, Batch], Any]:
    """The term of a signal, see `train.Term`: the distance to what the teacher says.

    Of a signal at positions it is of those that the teacher has kept, and that the student's own `mask`
    has, where it gives one.

    Args:
      signal: that a batch has the parts of.
      temperature: of both softmaxes. One of its own, if the signal is a top k.
      loss: how the logits are compared.
      standardize: both of them before that.
      teacher_weights: of teachers that are kept apart: the weighted sum of their losses.
      axis_name: mapped axis of the batch.

    Raises:
      BadInput: the signal has no classes, or not all logits where the loss needs them, or the student
        answers behind the end of every example.
    """
    if isinstance(signal, teacher.Positions) and loss.delay >= signal.most:
        raise BadInput(
            "logits.delay", f"{loss.delay} of at most {signal.most} frames", "give fewer than these"
        )
    assert isinstance(signal, teacher.Apart) == (teacher_weights is not None)
    compare = _compare(signal, loss, temperature, standardize, axis_name)

    def term(outputs, batch):
        outputs = _sooner(outputs, loss.delay) if loss.delay else outputs
        logits = outputs["logits"]
        parts = {name: batch[name] for name in signal.parts()}
        if isinstance(signal, teacher.Positions):
            parts = signal.cut(parts, logits.shape[1])
        if teacher_weights is None:
            found = compare(logits, parts, batch)
        else:
            each = jax.vmap(lambda mine: compare(logits, mine, batch), in_axes=1)(parts)
            # Of each teacher [batch], or a scalar.
            weights = teacher_weights.reshape(-1, *(1,) * (each.ndim - 1))
            found = (weights * each).sum(0)
        rows = loss.rows({**batch, **parts})
        kept = _kept(signal, outputs, batch)
        if kept is not None:
            kept = kept if found.ndim == kept.ndim else kept.any(-1)
            rows = kept if rows is None else rows & kept
        return found if rows is None else (found, rows)

    return term


def _sooner(outputs: train.Outputs, frames: int) -> train.Outputs:
    """Logits and mask, moved so many frames ahead; no frame is where there are none."""
    logits = outputs["logits"]
    mask = outputs.get("mask", jnp.ones(logits.shape[:2], bool))
    behind = ((0, 0), (0, frames))
    moved = {
        "logits": jnp.pad(logits[:, frames:], (*behind, (0, 0))),
        "mask": jnp.pad(mask[:, frames:], behind),
    }
    return {**outputs, **{name: x[:, : logits.shape[1]] for name, x in moved.items()}}


def _kept(
    signal: teacher.Signal, outputs: train.Outputs, batch: Batch
) -> Bool[Array, "batch positions"] | None:
    """Positions that the teacher has kept and that are no padding; None where there are none."""
    if not isinstance(signal, teacher.Positions):
        return None
    kept = signal.mask(batch["teacher_length"])[:, : outputs["logits"].shape[1]]
    kept = kept & batch[draws.HIDDEN] if signal.hidden else kept
    return kept & outputs["mask"] if "mask" in outputs else kept


def _compare(
    signal: teacher.Signal,
    loss: LogitLoss,
    temperature: Scalar,
    standardize: bool,
    axis_name: str | None,
) -> _OfParts:
    match signal:
        case teacher.Apart(of=of) | teacher.Positions(of=of):
            return _compare(of, loss, temperature, standardize, axis_name)
        case teacher.TopK(temperatures=temperatures):
            if standardize or not loss.takes_top_k:
                raise BadInput("logits", f"{loss.name} needs all logits, and a top k is kept")

            def of_top_k(logits, parts, batch):
                which = jnp.argmin(jnp.abs(jnp.asarray(temperatures) - temperature))
                return losses.kd_kl_top_k(
                    logits,
                    parts["teacher_indices"],
                    parts["teacher_log_probs"],
                    parts["teacher_log_tail"][..., which],
                    temperature=temperature,
                )

            return of_top_k
        case teacher.Logits():
            between = loss.between(temperature, axis_name)

            def of_logits(logits, parts, batch):
                wanted = parts["teacher_logits"]
                if standardize:
                    logits, wanted = losses.standardize(logits), losses.standardize(wanted)
                return between(logits, wanted, batch)

            return of_logits
    raise BadInput("", "an embedding says nothing of classes", "a stage distill_encoder learns it")
