"""What losses share about the rows of a batch: their directions, and those of all devices.

With `axis_name=None` the batch is already global and the rows of all devices are the rows given.
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, Shaped


def unit(x: Float[Array, "*shape"], *, axis: int = -1) -> Float[Array, "*shape"]:
    """`x / max(length, 1e-12)` along `axis`, in float32, as `torch.nn.functional.normalize`.

    What is all zero has no direction: it stays zero and sends no gradient, where torch sends the one
    that arrives times 1e12.
    """
    x = x.astype(jnp.float32)
    squared = (x * x).sum(axis, keepdims=True)
    return jnp.where(squared > 0, x * lax.rsqrt(jnp.maximum(squared, 1e-24)), 0.0)


def cosine(
    z: Float[Array, "*batch dim"], target: Float[Array, "*batch dim"]
) -> Float[Array, "*batch"]:
    """Per-example cosine, 0 where a row is zero. No gradient reaches the target."""
    return (unit(z) * lax.stop_gradient(unit(target))).sum(-1)


def dots(a: Float[Array, "a dim"], b: Float[Array, "b dim"]) -> Float[Array, "a b"]:
    """Every row of `a` with every row of `b`, in float32 on accelerators too."""
    return jnp.matmul(a, b.T, precision=lax.Precision.HIGHEST)


def everywhere(x: Float[Array, "rows *dims"], axis_name: str | None) -> Float[Array, "all *dims"]:
    """The rows of all devices."""
    return x if axis_name is None else lax.all_gather(x, axis_name, tiled=True)


def places(x: Float[Array, "rows *dims"], axis_name: str | None) -> Int[Array, " rows"]:
    """Where the rows of this device are among those of all."""
    first = 0 if axis_name is None else lax.axis_index(axis_name) * len(x)
    return jnp.arange(len(x)) + first


def count(x: Float[Array, "rows *dims"], axis_name: str | None) -> int:
    """How many rows all devices have together."""
    return len(x) if axis_name is None else len(x) * lax.axis_size(axis_name)


def mean(x: Float[Array, "rows *dims"], axis_name: str | None) -> Float[Array, "*dims"]:
    """The mean over the rows of all devices."""
    return x.mean(0) if axis_name is None else lax.pmean(x.mean(0), axis_name)


def all_rows(
    rows: Shaped[Array, "rows *rest"], axis_name: str | None
) -> Shaped[Array, "all *rest"]:
    """The rows of every device, in its order; the rows themselves in the global view."""
    return rows if axis_name is None else lax.all_gather(rows, axis_name, tiled=True)


def total(x: Float[Array, "..."], axis_name: str | None) -> Float[Array, "..."]:
    """The sum over devices; the array itself in the global view."""
    return x if axis_name is None else lax.psum(x, axis_name)


def unit_rows(rows: Float[Array, "*batch dim"]) -> Float[Array, "*batch dim"]:
    """Rows of length one, in float32. A row of zeros stays zero, and its gradient finite."""
    rows = rows.astype(jnp.float32)
    return rows * lax.rsqrt((rows * rows).sum(-1, keepdims=True) + 1e-12)


def products(a: Float[Array, "a dim"], b: Float[Array, "b dim"]) -> Float[Array, "a b"]:
    """The dot product of each row with each, in float32 where a device would rather round."""
    return jnp.matmul(a, b.T, precision=lax.Precision.HIGHEST)


def centred(x: Float[Array, "..."], axis: int, axis_name: str | None = None) -> Float[Array, "..."]:
    """`x` less its mean along an axis, which the devices of `axis_name` share.

    Equal entries give exact zeros: what rounding left of them would be all that a norm divides by.
    """
    most = lax.stop_gradient(x).max(axis, keepdims=True)
    devices = 1
    if axis_name is not None:
        most, devices = lax.pmax(most, axis_name), lax.axis_size(axis_name)
    x = x - most
    return x - total(x.sum(axis, keepdims=True), axis_name) / (x.shape[axis] * devices)


def root(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """The square root, with a gradient of zero at zero: that of a norm in torch."""
    positive = x > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, x, 1.0)), 0.0)


def flat(x: Float[Array, "batch *feature"]) -> Float[Array, "batch dim"]:
    """One float32 row for each example, whatever its shape was."""
    return x.astype(jnp.float32).reshape(x.shape[0], -1)


def positions(rows: int, axis_name: str | None) -> Int[Array, " rows"]:
    """Where this shard's rows are among `all_rows`."""
    first = 0 if axis_name is None else lax.axis_index(axis_name) * rows
    return jnp.arange(rows) + first
