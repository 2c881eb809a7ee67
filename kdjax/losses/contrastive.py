"""Losses that contrast the examples of a batch with one another."""

import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Float


def _all_rows(x: Float[Array, "rows dim"], axis_name: str | None) -> Float[Array, "all dim"]:
    """The rows of every shard; the rows themselves in the global view."""
    return x if axis_name is None else lax.all_gather(x, axis_name, tiled=True)


def nt_xent(
    za: Float[Array, "batch dim"],
    zb: Float[Array, "batch dim"],
    *,
    temperature: float,
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
    za, zb = (z.astype(jnp.float32) for z in (za, zb))
    za, zb = (z * lax.rsqrt((z * z).sum(-1, keepdims=True) + 1e-12) for z in (za, zb))
    all_a, all_b = _all_rows(za, axis_name), _all_rows(zb, axis_name)

    rows = za.shape[0]
    first = 0 if axis_name is None else lax.axis_index(axis_name) * rows
    positive = jnp.arange(rows) + first
    is_self = positive[:, None] == jnp.arange(all_a.shape[0])[None, :]

    def direction(query, other_view, same_view):
        across = query @ other_view.T / temperature
        within = jnp.where(is_self, -jnp.inf, query @ same_view.T / temperature)
        logits = jnp.concatenate([across, within], axis=-1)
        return optax.losses.softmax_cross_entropy_with_integer_labels(logits, positive)

    return 0.5 * (direction(za, all_b, all_a) + direction(zb, all_a, all_b))
