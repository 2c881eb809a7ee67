"""Losses against integer labels."""

import math

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from kdjax.losses.distillation import kd_kl
from kdjax.types import BadInput


def cross_entropy(
    logits: Float[Array, "*batch classes"],
    label: Int[Array, "*batch"],
    *,
    label_smoothing: float = 0.0,
) -> Float[Array, "*batch"]:
    """Per-example `-sum_c q_c log softmax(logits)_c`, in nats.

    `q` is `1 - label_smoothing` at the label plus `label_smoothing / classes` everywhere, so an
    example keeps a loss above zero at its optimum when smoothing is on.

    Args:
      logits: pre-softmax scores, any float dtype (float32 inside).
      label: integer classes. A negative label means "unlabelled": its row is zero and sends no
        gradient.
      label_smoothing: mass taken from the label and spread over all classes, in [0, 1).

    Reference: Szegedy et al. 2015, https://arxiv.org/abs/1512.00567, sec. 7.
    """
    logits = logits.astype(jnp.float32)
    one_hot = jax.nn.one_hot(label, logits.shape[-1])  # a row of zeros where label < 0
    target = optax.smooth_labels(one_hot, label_smoothing)
    loss = optax.losses.softmax_cross_entropy(logits, target)
    return jnp.where(label >= 0, loss, 0.0)


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
    is label smoothing, less a constant.

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
        raise BadInput(f"correct_probability: {correct_probability}; give one in (0, 1)")
    classes = student_logits.shape[-1]
    share = (1 - correct_probability) / (classes - 1)
    is_target = jax.nn.one_hot(label, classes, dtype=bool)
    teacher_logits = jnp.where(is_target, math.log(correct_probability), math.log(share))
    loss = kd_kl(student_logits, teacher_logits, temperature=temperature)
    return jnp.where(label >= 0, loss, 0.0)
