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
