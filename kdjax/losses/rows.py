"""What losses share about the rows of a batch: flat, of unit length, multiplied, of all devices.

With `axis_name=None` the batch is already global: all rows are the rows given.
"""

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Shaped


def flat(x: Float[Array, "batch *feature"]) -> Float[Array, "batch dim"]:
    """One float32 row for each example, whatever its shape was."""
    return x.astype(jnp.float32).reshape(x.shape[0], -1)


def unit(x: Float[Array, "*shape"], *, axis: int = -1) -> Float[Array, "*shape"]:
    """`x / max(length, 1e-12)` along `axis`, in float32, as `torch.nn.functional.normalize`.

    What is all zero has no direction: it stays zero and sends no gradient, where torch sends the one
    that arrives times 1e12.
    """
    x = x.astype(jnp.float32)
    squared = (x * x).sum(axis, keepdims=True)
    return jnp.where(squared > 0, x * lax.rsqrt(jnp.maximum(squared, 1e-24)), 0.0)


def cosine(
    x: Float[Array, "*batch dim"], target: Float[Array, "*batch dim"]
) -> Float[Array, "*batch"]:
    """Per-example cosine, 0 where a row is zero. No gradient reaches the target."""
    return (unit(x) * lax.stop_gradient(unit(target))).sum(-1)


def mean_square(
    student: Float[Array, "*batch dim"], teacher: Float[Array, "*batch dim"]
) -> Float[Array, "*batch"]:
    """Per-example mean of `(student - teacher)^2`, in float32. No gradient reaches the teacher."""
    student, teacher = (x.astype(jnp.float32) for x in (student, teacher))
    return optax.losses.squared_error(student, lax.stop_gradient(teacher)).mean(-1)


def expected(
    p: Float[Array, "*batch outcomes"], x: Float[Array, "*batch outcomes"]
) -> Float[Array, "*batch"]:
    """`sum p x` over outcomes, where what has no probability counts nothing: 0 log 0 is 0.

    So a class that both sides hold impossible, by a logit of -inf, costs nothing and sends no
    gradient, and one that `x` alone holds impossible costs infinitely much. A NaN in `p` stays one.
    """
    return (p * jnp.where(p == 0, 0.0, x)).sum(-1)


def is_possible(logits: Float[Array, "*shape"]) -> Bool[Array, "*shape"]:
    """False where a logit is -inf: a class that cannot be. NaN is left to be seen."""
    return logits != -jnp.inf


def log_sum(
    scores: Float[Array, "*batch outcomes"], where: Bool[Array, "*batch outcomes"]
) -> Float[Array, "*batch"]:
    """`logsumexp` over some outcomes; -inf, and no gradient, where none of them is possible."""
    where = where & is_possible(scores)
    exists = where.any(-1, keepdims=True)
    inside = jnp.where(exists, jnp.where(where, scores, -jnp.inf), 0.0)
    return jnp.where(exists[..., 0], jax.nn.logsumexp(inside, axis=-1), -jnp.inf)


def root(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """The square root, with a gradient of zero at zero: that of a norm in torch."""
    positive = x > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, x, 1.0)), 0.0)


def products(a: Float[Array, "a dim"], b: Float[Array, "b dim"]) -> Float[Array, "a b"]:
    """The dot product of each row with each."""
    return jnp.matmul(a, b.T, precision=lax.Precision.HIGHEST)


def contract(subscripts: str, *operands: Float[Array, "..."]) -> Float[Array, "..."]:
    """`jnp.einsum` in full float32, where an accelerator would rather round what it multiplies."""
    return jnp.einsum(subscripts, *operands, precision=lax.Precision.HIGHEST)


def all_rows(x: Shaped[Array, "rows *rest"], axis_name: str | None) -> Shaped[Array, "all *rest"]:
    """The rows of every device, in the order of the devices."""
    return x if axis_name is None else lax.all_gather(x, axis_name, tiled=True)


def row_count(x: Shaped[Array, "rows *rest"], axis_name: str | None) -> int:
    """How many rows all devices have together."""
    return len(x) * _devices(axis_name)


def positions(x: Shaped[Array, "rows *rest"], axis_name: str | None) -> Int[Array, " rows"]:
    """Where the rows of this device are among those of all."""
    first = 0 if axis_name is None else lax.axis_index(axis_name) * len(x)
    return jnp.arange(len(x)) + first


def is_itself(x: Shaped[Array, "rows *rest"], axis_name: str | None) -> Bool[Array, "rows all"]:
    """True where a row of this device meets itself among the rows of all."""
    everyone = jnp.arange(row_count(x, axis_name))
    return positions(x, axis_name)[:, None] == everyone[None, :]


def total(x: Float[Array, "*shape"], axis_name: str | None) -> Float[Array, "*shape"]:
    """The sum over devices."""
    return x if axis_name is None else lax.psum(x, axis_name)


def row_mean(x: Float[Array, "rows *rest"], axis_name: str | None) -> Float[Array, "*rest"]:
    """The mean over the rows of all devices."""
    return x.mean(0) if axis_name is None else lax.pmean(x.mean(0), axis_name)


def centred(
    x: Float[Array, "*shape"],
    *,
    axis: int,
    axis_name: str | None = None,
    where: Bool[Array, "*shape"] | None = None,
) -> Float[Array, "*shape"]:
    """`x` less its mean along an axis, which the devices of `axis_name` share.

    Equal entries give exact zeros: what rounding left of them would be all that a norm divides by.
    What `where` leaves out is no part of the mean, is zero, and gets no gradient.
    """
    inside = x if where is None else jnp.where(where, x, -jnp.inf)
    most = lax.stop_gradient(inside).max(axis, keepdims=True)
    most = most if axis_name is None else lax.pmax(most, axis_name)
    entries = x.shape[axis] * _devices(axis_name)
    if where is None:
        x = x - most
        return x - total(x.sum(axis, keepdims=True), axis_name) / entries
    x = x - jnp.where(is_possible(most), most, 0.0)
    sums = total(jnp.where(where, x, 0.0).sum(axis, keepdims=True), axis_name)
    mean = sums / entries * of_those(where, axis=axis, axis_name=axis_name)
    return jnp.where(where, x - mean, 0.0)


def of_those(
    where: Bool[Array, "*shape"], *, axis: int, axis_name: str | None = None
) -> Float[Array, "*kept"]:
    """What makes a mean along an axis, of zeros elsewhere, one of the entries `where` alone.

    Exactly 1 where these are all, so that such a mean stays what it was to the last digit, and finite
    where there are none. The devices of `axis_name` share the axis.
    """
    entries = where.shape[axis] * _devices(axis_name)
    counted = total(where.sum(axis, keepdims=True).astype(jnp.float32), axis_name)
    return entries / jnp.maximum(counted, 1.0)


def in_some_row(
    where: Bool[Array, "rows *rest"], *, axis_name: str | None = None
) -> Bool[Array, "*rest"]:
    """True where any row of all devices is."""
    return total(where.any(0).astype(jnp.float32), axis_name) > 0


def _devices(axis_name: str | None) -> int:
    return 1 if axis_name is None else lax.axis_size(axis_name)
