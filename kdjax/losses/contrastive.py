"""Losses that contrast the examples of a batch with one another, or with a queue of earlier ones."""

import math

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Bool, Float

from kdjax.losses.rows import all_rows, is_itself, positions, products, row_count, unit
from kdjax.types import BadInput


def _similarities(
    za: Float[Array, "batch dim"],
    zb: Float[Array, "batch dim"],
    *,
    temperature: float | Float[Array, ""],
    axis_name: str | None,
) -> tuple[Bool[Array, "batch all"], tuple[tuple[Array, Array], tuple[Array, Array]]]:
    """`own`, and for each view its logits `(across, within)` to all rows of the other and of itself.

    `own` is True where a column of all rows is the row's own: across it is the positive, within the
    row itself, which is left out (-inf).
    """
    all_a, all_b = all_rows(za, axis_name), all_rows(zb, axis_name)
    own = is_itself(za, axis_name)

    def direction(query, other_view, same_view):
        across = products(query, other_view) / temperature
        return across, jnp.where(own, -jnp.inf, products(query, same_view) / temperature)

    return own, (direction(za, all_b, all_a), direction(zb, all_a, all_b))


def nt_xent(
    za: Float[Array, "batch dim"],
    zb: Float[Array, "batch dim"],
    *,
    temperature: float | Float[Array, ""],
    axis_name: str | None = None,
) -> Float[Array, " batch"]:
    """Per-example NT-Xent between two views, in nats.

    Row `i` of `za` and row `i` of `zb` are the positive pair; the other `2 * (N - 1)` projections
    are its negatives, where `N` counts the rows of all devices. Both directions are averaged, as in
    the paper's eq. 1; the authors' own code adds them and so reports twice this value.

    Args:
      za: projections of view a, at any scale: they are normalised here, in float32. A row of zeros
        stays zero.
      zb: projections of view b.
      temperature: divisor of the cosine similarities, > 0.
      axis_name: mapped axis to gather negatives over. `None` where the batch is already global, as
        it is under `jax.jit`.

    Reference: Chen et al. 2020, https://arxiv.org/abs/2002.05709, eq. 1.
    """
    _, directions = _similarities(unit(za), unit(zb), temperature=temperature, axis_name=axis_name)
    positive = positions(za, axis_name)

    def loss(across, within):
        logits = jnp.concatenate([across, within], axis=-1)
        return optax.losses.softmax_cross_entropy_with_integer_labels(logits, positive)

    a, b = directions
    return 0.5 * (loss(*a) + loss(*b))


def dcl(
    za: Float[Array, "batch dim"],
    zb: Float[Array, "batch dim"],
    *,
    temperature: float | Float[Array, ""],
    sigma: float = math.inf,
    axis_name: str | None = None,
) -> Float[Array, " batch"]:
    """Per-example decoupled contrastive loss between two views, in nats; it may be negative.

    NT-Xent with the positive taken out of the denominator: `logsumexp` over the `2 * (N - 1)`
    negatives less the weighted positive logit, both directions averaged. The weight of a pair is
    `2 - exp(cos / sigma) / mean exp(cos / sigma)`, the mean over the pairs of all devices: 1 at
    `sigma = inf` (DCL); at a finite one, less for those that agree already (DCLW). No gradient
    passes through it. Older versions of lightly add a `logsumexp` for each view's negatives, which
    is another loss, and its weights know the pairs of one device alone.

    Args:
      za: projections of view a, at any scale: they are normalised here, in float32. A row of zeros
        stays zero.
      zb: projections of view b.
      temperature: divisor of the cosine similarities, > 0.
      sigma: divisor of the cosines in the weight, > 0; 0.5 is usual for DCLW.
      axis_name: mapped axis to gather negatives over. `None` where the batch is already global, as
        it is under `jax.jit`.

    Raises:
      BadInput: there is one pair in all, which has no negatives.

    Reference: Yeh et al. 2021, https://arxiv.org/abs/2110.06848, eq. 6, and its weighted form.
    """
    if row_count(za, axis_name) < 2:
        raise BadInput("batch", "one pair has no negatives", "give at least two")
    za, zb = unit(za), unit(zb)
    own, directions = _similarities(za, zb, temperature=temperature, axis_name=axis_name)

    cosine = (za * zb).sum(-1)
    agreement = lax.stop_gradient(cosine) / sigma
    mean = jax.nn.logsumexp(all_rows(agreement, axis_name)) - math.log(own.shape[1])
    positive = (2.0 - jnp.exp(agreement - mean)) * cosine / temperature

    def negatives(across, within):
        logits = jnp.concatenate([jnp.where(own, -jnp.inf, across), within], axis=-1)
        return jax.nn.logsumexp(logits, axis=-1)

    a, b = directions
    return 0.5 * (negatives(*a) + negatives(*b)) - positive


def info_nce(
    query: Float[Array, "batch dim"],
    key: Float[Array, "batch dim"],
    queue: Float[Array, "queue dim"],
    *,
    temperature: float | Float[Array, ""],
) -> Float[Array, " batch"]:
    """Per-example InfoNCE of a query among its key and a queue of earlier keys, in nats (MoCo).

    The queue holds all negatives: the rows of the batch do not meet, so there is nothing to gather.
    It is state, and this loss reads it before the keys of the batch go in. No gradient reaches the
    key or the queue.

    Args:
      query: of the online network, at any scale: rows are normalised here, in float32. A row of
        zeros stays zero.
      key: of the momentum encoder, for the other view of the same example.
      queue: earlier keys. A row that was never filled and is zero counts as a negative at a right
        angle to everything.
      temperature: divisor of the cosine similarities, > 0.

    Reference: He et al. 2019, https://arxiv.org/abs/1911.05722, eq. 1 and algorithm 1.
    """
    query = unit(query)
    key, queue = lax.stop_gradient((unit(key), unit(queue)))
    positive = (query * key).sum(-1, keepdims=True)
    logits = jnp.concatenate([positive, products(query, queue)], axis=-1) / temperature
    first = jnp.zeros(len(query), jnp.int32)
    return optax.losses.softmax_cross_entropy_with_integer_labels(logits, first)


def moco_v3(
    query: Float[Array, "batch dim"],
    key: Float[Array, "batch dim"],
    *,
    temperature: float | Float[Array, ""],
    axis_name: str | None = None,
) -> Float[Array, " batch"]:
    """Per-example `2 * temperature * InfoNCE` of a query among the keys of the batch.

    One direction: the method adds `moco_v3(query_a, key_b)` and `moco_v3(query_b, key_a)`. The
    factor keeps the gradient's scale as the temperature changes. The keys of the other `N - 1`
    examples of all devices are the negatives; no gradient reaches any key.

    Args:
      query: of the online network and its predictor, at any scale: rows are normalised here, in
        float32. A row of zeros stays zero.
      key: of the momentum encoder, for the other view of the same example.
      temperature: divisor of the cosine similarities, > 0.
      axis_name: mapped axis to gather keys over. `None` where the batch is already global, as it is
        under `jax.jit`.

    Reference: Chen, Xie & He 2021, https://arxiv.org/abs/2104.02057, eq. 1 and algorithm 1.
    """
    keys = all_rows(lax.stop_gradient(unit(key)), axis_name)
    logits = products(unit(query), keys) / temperature
    own = positions(query, axis_name)
    loss = optax.losses.softmax_cross_entropy_with_integer_labels(logits, own)
    return 2.0 * temperature * loss
