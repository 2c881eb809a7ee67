"""Learning from one's own predictions: pseudo-labels, how far they are trusted, and their shares."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from kdjax.losses.classification import cross_entropy
from kdjax.losses.rows import row_mean
from kdjax.types import BadInput


class SoftMatchState(NamedTuple):
    """Running statistics of the predictions, the same on every device.

    Attributes:
      shares: of each class, times `weight`.
      doubt: mean of what is left of 1 beside the largest probability of a row, times `weight`.
      square: mean of its square, times `weight`.
      weight: that the batches so far have together; below 1, and 0 before the first.
    """

    shares: Float[Array, " classes"]
    doubt: Float[Array, ""]
    square: Float[Array, ""]
    weight: Float[Array, ""]


def soft_match_state(classes: int) -> SoftMatchState:
    """Before the first batch."""
    # Buffers of their own: a step may take all of them.
    return SoftMatchState(jnp.zeros(classes), *(jnp.zeros(()) for _ in range(3)))


def soft_match(
    logits: Float[Array, "batch classes"],
    predicted_logits: Float[Array, "batch classes"],
    state: SoftMatchState,
    *,
    prior: Float[Array, " classes"] | None = None,
    momentum: float = 0.99,
    sharpness: float = 2.0,
    axis_name: str | None = None,
) -> tuple[Float[Array, " batch"], SoftMatchState, Float[Array, " batch"]]:
    """Per-example weighted cross-entropy with a pseudo-label, in nats; the state after this batch.

    The probabilities of a prediction are divided by their running mean over all examples, multiplied
    by `prior` and normalised: what is predicted of all together has the shares that are known. The
    likeliest class is the pseudo-label of the row, and the row's weight is 1 where its probability is
    at least the running mean of such, and `exp(-(sharpness * distance / deviation)^2 / 2)` below it.
    No threshold is chosen: what counts as sure follows the predictions.

    It departs from the paper in its running means: each is that of all batches so far, where the
    authors begin with a mean of `1 / classes` and a variance of 1. No gradient reaches the
    predictions or the state.

    Args:
      logits: of the strong views, pre-softmax, any float dtype (float32 inside).
      predicted_logits: of the weak views of the same examples.
      state: from `soft_match_state`, then from the call before.
      prior: shares of the classes, adding up to 1; None for equal ones. A class of none is never a
        pseudo-label.
      momentum: of the running means, in [0, 1).
      sharpness: how fast the weight falls below the mean; the authors' `n_sigma`.
      axis_name: mapped axis of the batch. `None` where it is already global, as under `jax.jit`.

    Returns:
      The losses, the new state, and the weight of each row.

    Raises:
      BadInput: `momentum` or `sharpness` is out of range.

    Reference: Chen et al. 2023, https://arxiv.org/abs/2301.10921, eq. 4 to 8; the alignment is that
    of Berthelot et al. 2019, https://arxiv.org/abs/1911.09785, sec. 3.1.
    """
    if not 0 <= momentum < 1:
        raise BadInput("momentum", f"{momentum} is not in [0, 1)")
    if not sharpness > 0:
        raise BadInput("sharpness", f"{sharpness} is not positive")
    classes = logits.shape[-1]
    predicted = lax.stop_gradient(jax.nn.softmax(predicted_logits.astype(jnp.float32)))

    def moved(old: Float[Array, "*shape"], new: Float[Array, "rows *shape"]) -> Array:
        return momentum * old + (1 - momentum) * row_mean(new, axis_name)

    weight = momentum * state.weight + (1 - momentum)
    shares = moved(state.shares, predicted)
    wanted = jnp.full(classes, 1 / classes) if prior is None else prior
    aligned = predicted * (wanted / jnp.maximum(shares / weight, 1e-6))[None, :]
    aligned = aligned / jnp.maximum(aligned.sum(-1, keepdims=True), 1e-12)

    # Not of the probabilities: where nearly all are 1, their variance would be lost in rounding.
    doubts = 1 - aligned.max(-1)
    doubt, square = moved(state.doubt, doubts), moved(state.square, doubts**2)
    centre = doubt / weight
    variance = jnp.maximum(square / weight - centre**2, 1e-12)
    above = jnp.maximum(doubts - centre, 0)
    trust = jnp.exp(-(sharpness**2) * above**2 / (2 * variance))
    losses = trust * cross_entropy(logits, aligned.argmax(-1))
    return losses, SoftMatchState(shares, doubt, square, weight), trust
