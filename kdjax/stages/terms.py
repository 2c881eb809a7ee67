"""The terms of a student's loss that its teacher's and its own logits give."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from kdjax import config, losses, teacher, train
from kdjax.config import PLAIN_KD
from kdjax.types import BadInput, Batch

Scalar = float | Float[Array, ""]
Compare = Callable[[Array, Mapping[str, Array], Batch], Array]
"""`(student logits, parts of the signal of one teacher, batch) -> losses` [batch], or a scalar."""


def kd_term(
    signal: teacher.Signal,
    *,
    temperature: Scalar,
    loss: config.LogitLoss = PLAIN_KD,
    standardize: bool = False,
    teacher_weights: Float[Array, " teachers"] | None = None,
    axis_name: str | None = None,
) -> Callable[[train.Outputs, Batch], Any]:
    """The term of a signal, see `train.Term`: the distance to what the teacher says.

    Args:
      signal: that a batch has the parts of.
      temperature: of both softmaxes. One of its own, if the signal is a top k.
      loss: how the logits are compared.
      standardize: both of them before that.
      teacher_weights: of teachers that are kept apart: the weighted sum of their losses.
      axis_name: mapped axis of the batch.

    Raises:
      BadInput: the signal has no classes, or not all logits where the loss needs them.
    """
    assert isinstance(signal, teacher.Apart) == (teacher_weights is not None)
    compare = _compare(signal, loss, temperature, standardize, axis_name)

    def term(outputs, batch):
        parts = {name: batch[name] for name in signal.parts()}
        logits = outputs["logits"]
        if teacher_weights is None:
            found = compare(logits, parts, batch)
        else:
            each = jax.vmap(lambda mine: compare(logits, mine, batch), in_axes=1)(parts)
            # Of each teacher [batch], or a scalar.
            weights = teacher_weights.reshape(-1, *(1,) * (each.ndim - 1))
            found = (weights * each).sum(0)
        if isinstance(loss, config.DKD) and loss.target == "label":
            return found, batch["label"] >= 0
        return found

    return term


def _compare(
    signal: teacher.Signal,
    loss: config.LogitLoss,
    temperature: Scalar,
    standardize: bool,
    axis_name: str | None,
) -> Compare:
    match signal:
        case teacher.Apart(of=of):
            return _compare(of, loss, temperature, standardize, axis_name)
        case teacher.TopK(temperatures=temperatures):
            if standardize or not isinstance(loss, config.KL):
                raise BadInput(f"logits: {loss.name} needs all logits, and a top k is kept")

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
            between = _between(loss, temperature, axis_name)

            def of_logits(logits, parts, batch):
                wanted = parts["teacher_logits"]
                if standardize:
                    logits, wanted = losses.standardize(logits), losses.standardize(wanted)
                return between(logits, wanted, batch)

            return of_logits
    raise BadInput("an embedding says nothing of classes; a stage distill_encoder learns it")


def _between(
    loss: config.LogitLoss, temperature: Scalar, axis_name: str | None
) -> Callable[[Array, Array, Batch], Array]:
    """`(student logits, teacher logits, batch) -> losses` of a loss that sees all logits."""
    match loss:
        case config.KL():
            of_two = functools.partial(losses.kd_kl, temperature=temperature)
        case config.SoftCE():
            of_two = functools.partial(losses.kd_ce, temperature=temperature)
        case config.LogitMSE():
            of_two = losses.kd_mse
        case config.DIST(beta=beta, gamma=gamma):
            of_two = functools.partial(
                losses.dist, beta=beta, gamma=gamma, temperature=temperature, axis_name=axis_name
            )
        case config.MultiLevel(temperatures=temperatures):
            of_two = functools.partial(
                losses.multi_level_kd, temperatures=temperatures, axis_name=axis_name
            )
        case config.DKD(alpha=alpha, beta=beta, target=target):

            def decoupled(student, wanted, batch):
                label = batch["label"]
                if target == "teacher":
                    # A mixed view has two labels: there the teacher's class is that of every row.
                    known = jnp.zeros_like(label, bool) if "weight" in batch else label >= 0
                    label = jnp.where(known, label, wanted.argmax(-1).astype(label.dtype))
                return losses.dkd(
                    student, wanted, label, alpha=alpha, beta=beta, temperature=temperature
                )

            return decoupled
    return lambda student, wanted, batch: of_two(student, wanted)


def ce_term(outputs: train.Outputs, batch: Batch) -> tuple[Array, Array]:
    """Cross-entropy of the labelled rows; of mixed ones with both labels, in their shares."""
    ce, shown = losses.cross_entropy(outputs["logits"], batch["label"]), batch["label"] >= 0
    if "weight" not in batch:
        return ce, shown
    weight, other = batch["weight"], batch["partner_label"]
    ce = jnp.concatenate([ce, losses.cross_entropy(outputs["logits"], other)])
    return ce, jnp.concatenate([weight * shown, (1.0 - weight) * (other >= 0)])
