"""Fixed-point arithmetic, so that a view has the same bytes in every program.

The same float formula gives other last bits in another program: a sum is reordered when the batch
or the device changes, and a product is folded into the sum behind it (FMA) or not, depending on
what the compiler fused. A view must not depend on either, as a cached teacher signal belongs to
exactly one view. So the views keep to three rules:

  * pixels are whole levels, `0 .. LEVELS`, held in float32 (12 bits, 16 for each level of uint8);
  * what is summed over pixels is a whole number below 2**24, so that every order is exact;
  * a product that is then added to is rounded first (`product`), so that no FMA can form.
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

# 16 * 255: a pixel that came from uint8 sits on a level exactly.
LEVELS = 4080.0
# What a column of weights adds up to, before rounding. `LEVELS * (WEIGHT + taps / 2)` must stay
# below 2**24, so up to 224 taps: a kernel that wide, or an image shrunk 112 times.
WEIGHT = 4000.0


def levels(image: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """The level of each pixel of an image in [0, 1]; values outside are clipped."""
    return jnp.clip(jnp.round(image.astype(jnp.float32) * LEVELS), 0.0, LEVELS)


def pixels(level: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """The image in [0, 1] with these levels, which are rounded and clipped."""
    return jnp.clip(jnp.round(level), 0.0, LEVELS) / LEVELS


def product(a: Float[Array, "*a"] | float, b: Float[Array, "*b"] | float) -> Float[Array, "..."]:
    """`a * b`, rounded to 22 bits of mantissa: a compiler cannot fold it into a following sum."""
    return lax.reduce_precision(jnp.multiply(a, b), exponent_bits=8, mantissa_bits=22)


def between(unit: Float[Array, "*shape"], low: float, high: float) -> Float[Array, "*shape"]:
    """Uniform in [low, high], from `unit` uniform in [0, 1)."""
    return low + product(unit, high - low)


def below(unit: Float[Array, "*shape"], count: Int[Array, "*shape"] | int) -> Int[Array, "*shape"]:
    """Uniform in `0 .. count - 1`, from `unit` uniform in [0, 1)."""
    return jnp.floor(unit * count).astype(jnp.int32)


def weights(raw: Int[Array, "taps out"]) -> Float[Array, "taps out"]:
    """Whole-number weights in proportion to `raw` >= 0; each column adds up to about `WEIGHT`."""
    total = raw.sum(axis=0, keepdims=True)
    return jnp.round(raw.astype(jnp.float32) * WEIGHT / total.astype(jnp.float32))


def separable(
    level: Float[Array, "height width channel"],
    rows: Float[Array, "height top"],
    columns: Float[Array, "width left"],
) -> Float[Array, "top left channel"]:
    """Weighted means down the rows, then along the columns, as two exact matrix products.

    Both `rows` and `columns` come from `weights`. The levels are rounded after each pass, so the
    result is within about two levels (an eighth of a level of uint8) of real arithmetic.
    """
    # HIGHEST, as TF32 or bfloat16 would not hold 12 bits.
    level = jnp.einsum("hwc,ht->twc", level, rows, precision=lax.Precision.HIGHEST)
    level = jnp.round(level / rows.sum(axis=0)[:, None, None])
    level = jnp.einsum("twc,wl->tlc", level, columns, precision=lax.Precision.HIGHEST)
    return jnp.round(level / columns.sum(axis=0)[None, :, None])
