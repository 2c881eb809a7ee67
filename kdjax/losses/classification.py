"""Losses against integer labels."""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int


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
