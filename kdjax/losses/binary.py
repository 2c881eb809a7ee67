"""Losses of classes that do not exclude each other: a sigmoid for each."""

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Float


def binary_cross_entropy(
    logits: Float[Array, "*batch classes"], label: Float[Array, "*batch classes"]
) -> Float[Array, "*batch"]:
    """Per-example mean over the classes of `-y log s(z) - (1 - y) log s(-z)`, in nats.

    Args:
      logits: of each class, any float dtype (float32 inside).
      label: 1 for each class that an example is of, 0 for the others.
    """
    found = optax.losses.sigmoid_binary_cross_entropy(logits.astype(jnp.float32), label)
    return found.mean(-1)


def binary_kl(
    student_logits: Float[Array, "*batch classes"],
    teacher_logits: Float[Array, "*batch classes"],
    *,
    temperature: float | Float[Array, ""] = 1.0,
) -> Float[Array, "*batch"]:
    """Per-example mean over the classes of `T^2 KL(s(z_t / T) || s(z_s / T))`, in nats.

    The teacher gets no gradient. It is `kd_kl` of each class against its absence.

    Reference: Hinton et al. 2015, https://arxiv.org/abs/1503.02531, sec. 2, with two classes.
    """
    teacher_logits = lax.stop_gradient(teacher_logits).astype(jnp.float32) / temperature
    student_logits = student_logits.astype(jnp.float32) / temperature
    p = jax.nn.sigmoid(teacher_logits)

    def apart(sign: float) -> Array:
        return jax.nn.log_sigmoid(sign * teacher_logits) - jax.nn.log_sigmoid(sign * student_logits)

    return temperature**2 * (p * apart(1.0) + (1.0 - p) * apart(-1.0)).mean(-1)
