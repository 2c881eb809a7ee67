"""Losses against integer labels."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from kdjax.losses.distillation import kd_kl
from kdjax.losses.rows import expected, is_possible
from kdjax.types import BadInput


def cross_entropy(
    logits: Float[Array, "*batch classes"],
    label: Int[Array, "*batch"],
    *,
    label_smoothing: float = 0.0,
) -> Float[Array, "*batch"]:
    """Per-example `-sum_c q_c log softmax(logits)_c`, in nats.

    `q` is `1 - label_smoothing` at the label plus `label_smoothing / classes` everywhere, so an
    example keeps a loss above zero at its optimum when smoothing is on. A logit of -inf is a class
    that cannot be: it gets no share, those of the others are of their number, and an example with
    that label costs infinitely much.

    Args:
      logits: pre-softmax scores, any float dtype (float32 inside).
      label: integer classes. A negative label means "unlabelled": its row is zero and sends no
        gradient.
      label_smoothing: mass taken from the label and spread over all classes, in [0, 1).

    Reference: Szegedy et al. 2015, https://arxiv.org/abs/1512.00567, sec. 7.
    """
    logits = logits.astype(jnp.float32)
    one_hot = jax.nn.one_hot(label, logits.shape[-1])  # a row of zeros where label < 0
    possible, all_classes = is_possible(logits), logits.shape[-1]
    classes = possible.sum(-1, keepdims=True)
    of_some = label_smoothing / jnp.maximum(classes, 1)
    # Of all of them as Python divides, to the last digit.
    share = jnp.where(classes == all_classes, label_smoothing / all_classes, of_some)
    target = (1.0 - label_smoothing) * one_hot + jnp.where(possible, share, 0.0)
    return jnp.where(label >= 0, -expected(target, jax.nn.log_softmax(logits)), 0.0)


def tf_kd(
    student_logits: Float[Array, "*batch classes"],
    label: Int[Array, "*batch"],
    *,
    correct_probability: float,
    temperature: float | Float[Array, ""],
) -> Float[Array, "*batch"]:
    """Per-example `kd_kl` from a virtual teacher, made of the label alone, in nats.

    The teacher gives the label `correct_probability` and every other class the same share of the
    rest, and both sides are softened: its probabilities to the power of `1 / temperature`, which is
    a division of its logits. The factor of a squared temperature is that of `kd_kl`; the paper's
    equation has none, so its weight is this one's times `temperature^2`. At a temperature of 1 this
    is label smoothing, less a constant. A logit of -inf is a class that cannot be: it gets no share
    of the rest.

    The authors' code does not compute the paper's equation: its teacher is the softmax of
    *probabilities* over the temperature, nearly uniform, and its student is not softened. That is
    `cross_entropy` with much `label_smoothing`, less a constant.

    Args:
      student_logits: pre-softmax scores, any float dtype (float32 inside).
      label: integer classes. A negative label means "unlabelled": its row is zero and sends no
        gradient.
      correct_probability: what the teacher gives the label before it is softened, in (0, 1); the
        paper's is 0.99.
      temperature: divisor of both sides' logits, > 0; the paper's is 20 or more. It may be traced.

    Raises:
      BadInput: `correct_probability` is out of range.

    Reference: Yuan et al. 2020, https://arxiv.org/abs/1909.11723, eq. 8 and 9 (Tf-KD_reg).
    """
    if not 0 < correct_probability < 1:
        raise BadInput("correct_probability", f"{correct_probability}", "give one in (0, 1)")
    possible, all_classes = is_possible(student_logits), student_logits.shape[-1]
    is_target = jax.nn.one_hot(label, all_classes, dtype=bool)
    rest = 1 - correct_probability
    of_some = jnp.log(rest / jnp.maximum(possible.sum(-1, keepdims=True) - 1, 1))
    share = jnp.where(possible.all(-1, keepdims=True), math.log(rest / (all_classes - 1)), of_some)
    others = jnp.where(possible, share, -jnp.inf)
    teacher_logits = jnp.where(is_target, math.log(correct_probability), others)
    loss = kd_kl(student_logits, teacher_logits, temperature=temperature)
    return jnp.where(label >= 0, loss, 0.0)
