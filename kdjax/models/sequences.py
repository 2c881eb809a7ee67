"""Which positions of a sequence are no padding, and means over them."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Shaped


def mask_of(
    x: Shaped[Array, "batch step ..."], length: Int[Array, " batch"] | None
) -> Bool[Array, "batch step"]:
    """Which steps are no padding: the first `length` of each example, or all without lengths."""
    if length is None:
        return jnp.ones(x.shape[:2], bool)
    return jnp.expand_dims(jnp.arange(x.shape[1]), 0) < length[:, None]


def mean_of(
    x: Float[Array, "batch step dim"], mask: Bool[Array, "batch step"]
) -> Float[Array, "batch dim"]:
    """The mean over the steps that are no padding, float32; of none of them it is zero."""
    weight = mask[..., None].astype(jnp.float32)
    return (x.astype(jnp.float32) * weight).sum(1) / jnp.maximum(weight.sum(1), 1.0)


def rows_of(
    x: Float[Array, "batch step ..."], length: Int[Array, " batch"] | None
) -> tuple[Float[Array, "batch step dim"], Int[Array, " batch"] | None]:
    """What each step has as one row, zeros where there is padding, and the lengths, at least 1.

    Where a layer is rounded in the call, padding has so no part in how finely.
    """
    x = x.reshape(*x.shape[:2], -1) if x.ndim > 3 else x
    if length is None:
        return x, None
    length = jnp.maximum(length, 1)
    return jnp.where(mask_of(x, length)[..., None], x, 0.0), length
