"""A first-in first-out queue of embeddings: the state of MoCo, SEED and CompRess."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, Key

from kdjax.losses.rows import all_rows, unit
from kdjax.types import BadInput


def random_queue(key: Key[Array, ""], *, size: int, dim: int) -> Float[Array, "{size} {dim}"]:
    """What a queue begins with: random unit rows, as in the authors' code of MoCo."""
    return unit(jax.random.normal(key, (size, dim)))


def enqueue(
    queue: Float[Array, "size dim"],
    rows: Float[Array, "batch dim"],
    pointer: Int[Array, ""],
    *,
    axis_name: str | None = None,
) -> tuple[Float[Array, "size dim"], Int[Array, ""]]:
    """`(queue, pointer)` after `rows` took the place of the oldest ones.

    The published losses are computed with the queue as it was before their own batch goes in. No
    gradient goes through it.

    Args:
      queue: the rows so far; `pointer` is the oldest. It comes back in float32.
      rows: what to store, as it is: the losses that read a queue normalise.
      pointer: index of the row to write first, in [0, size). It moves on by as many rows as were
        written, and from the end to 0.
      axis_name: mapped axis to gather rows over, so that every device stores those of all, in the
        order of the devices. `None` where the batch is already global, as it is under `jax.jit`.

    Raises:
      BadInput: `size` is no multiple of the rows of all devices.

    Reference: He et al. 2019, https://arxiv.org/abs/1911.05722, algorithm 1.
    """
    size = queue.shape[0]
    queue, rows = (lax.stop_gradient(x.astype(jnp.float32)) for x in (queue, rows))
    rows = all_rows(rows, axis_name)
    if size % rows.shape[0]:
        raise BadInput("queue", f"{size} rows", f"give a multiple of the batch, {rows.shape[0]}")
    places = (pointer + jnp.arange(rows.shape[0], dtype=pointer.dtype)) % size
    queue = queue.at[places].set(rows, unique_indices=True)
    return queue, (pointer + rows.shape[0]) % size
