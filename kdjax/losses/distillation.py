"""Losses between a student's and a teacher's logits."""

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Float


def kd_kl(
    student_logits: Float[Array, "*batch classes"],
    teacher_logits: Float[Array, "*batch classes"],
    *,
    temperature: float = 1.0,
) -> Float[Array, "*batch"]:
    """Per-example `temperature^2 * KL(teacher || student)` of the softened softmaxes, in nats.

    The factor keeps the gradient's scale as the temperature changes. No gradient reaches the
    teacher.

    Args:
      student_logits: pre-softmax scores, any float dtype (float32 inside).
      teacher_logits: the teacher's scores of the same view of the same example.
      temperature: divisor of both logits, > 0.

    Reference: Hinton et al. 2015, https://arxiv.org/abs/1503.02531, sec. 2.
    """
    log_q = jax.nn.log_softmax(student_logits.astype(jnp.float32) / temperature)
    log_p = jax.nn.log_softmax(teacher_logits.astype(jnp.float32) / temperature)
    kl = optax.losses.kl_divergence_with_log_targets(log_q, lax.stop_gradient(log_p))
    return temperature**2 * kl
