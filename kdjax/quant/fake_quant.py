"""Few numbers for many: scales, and rounding to them with a gradient that passes straight through.

A quantized number is `scale * (integer - zero_point)`. Weights are symmetric, a scale for each output
channel. Activations are unsigned and asymmetric, one range for a tensor, as the kernels of the runtimes
want them (Jacob et al. 2017, https://arxiv.org/abs/1712.05877).
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from kdjax.quant.rules import Rule, WeightType

LEVELS: Mapping[WeightType, int] = {"int8": 127, "int4": 7, "ternary": 1, "binary": 1}
"""Weights are integers between minus this and this: zero is one of them, so a pruned weight stays."""

BITS: Mapping[WeightType, int] = {"int8": 8, "int4": 4, "ternary": 4, "binary": 4}
"""That a weight takes in a file: no format has fewer than four for ternary and binary ones."""

TOP = 255
"""The largest integer of an activation; the smallest is 0."""


class Weights(NamedTuple):
    """Weights as they are stored.

    Attributes:
      integers: of the type that `LEVELS` allows, as float32.
      scale: of each channel, with axes of length 1 for all others.
    """

    integers: Float[Array | np.ndarray, "..."]
    scale: Float[Array | np.ndarray, "..."]

    @property
    def values(self) -> Float[Array | np.ndarray, "..."]:
        """What they stand for."""
        return self.integers * self.scale


def quantize_weights(
    weights: Float[Array, "..."], rule: Rule, *, channels: tuple[int, ...]
) -> Weights:
    """The integers and scales of a parameter.

    * `int8`, `int4`: round(w / scale) with a scale of max |w| / level, or with the one of 32 smaller
      and smaller scales that has the least squared error (`mse`).
    * `ternary`: 0 below 0.7 mean |w|, else the sign; the scale is the mean |w| of those kept (Li et
      al. 2016, https://arxiv.org/abs/1605.04711, eq. 6 and 7).
    * `binary`: the sign, the scale is the mean |w| (Rastegari et al. 2016, XNOR-Net,
      https://arxiv.org/abs/1603.05279, eq. 6). The sign of an exact zero is zero, and it does not
      count for the mean, so that a pruned weight stays pruned.

    Args:
      weights: of a layer.
      rule: its numbers.
      channels: axes with a scale for each of their entries; the others share it.
    """
    rest = tuple(axis for axis in range(weights.ndim) if axis not in channels)
    size = jnp.abs(weights)

    def mean(chosen: Array) -> Array:
        count = jnp.maximum(chosen.sum(rest, keepdims=True), 1)
        return jnp.where(chosen, size, 0.0).sum(rest, keepdims=True) / count

    def usable(scale: Array) -> Array:
        return jnp.where(scale > 0, scale, 1.0)  # a channel of zeros

    match rule.weights:
        case "ternary":
            kept = size > 0.7 * mean(size > 0)
            return Weights(jnp.where(kept, jnp.sign(weights), 0.0), usable(mean(kept)))
        case "binary":
            return Weights(jnp.sign(weights), usable(mean(size > 0)))
    level = LEVELS[rule.weights]
    top = usable(size.max(rest, keepdims=True) / level)

    def rounded(scale: Array) -> Array:
        return jnp.clip(jnp.round(weights / scale), -level, level)

    if rule.scale == "absmax":
        return Weights(rounded(top), top)

    def better(i, best):
        least, scale = best
        candidate = top * (1.0 - i / 40)
        error = jnp.square(rounded(candidate) * candidate - weights).sum(rest, keepdims=True)
        return jnp.where(error < least, error, least), jnp.where(error < least, candidate, scale)

    _, scale = lax.fori_loop(0, 32, better, (jnp.full_like(top, jnp.inf), top))
    return Weights(rounded(scale), scale)


def fake_weights(
    weights: Float[Array, "..."], rule: Rule, *, channels: tuple[int, ...]
) -> Float[Array, "..."]:
    """The weights as they are after storing; the gradient is that of the weights themselves."""
    exact = weights.astype(jnp.float32)
    values = jnp.asarray(quantize_weights(exact, rule, channels=channels).values)
    return _straight_through(values, exact).astype(weights.dtype)


def scale_of(range: Float[Array | np.ndarray, "2"]) -> tuple[Array, Array]:
    """The scale and the zero point, in [0, 255], of an activation between two numbers.

    The range is widened to hold zero, which is then exact: padding and pruned channels rely on it.
    """
    low, high = jnp.minimum(range[0], 0.0), jnp.maximum(range[1], 0.0)
    scale = (high - low) / TOP
    scale = jnp.where(scale > 0, scale, 1.0)
    return scale, jnp.clip(jnp.round(-low / scale), 0, TOP)


def fake_activation(
    x: Float[Array, "..."], range: Float[Array | np.ndarray, "2"]
) -> Float[Array, "..."]:
    """An activation as it is after quantizing; the gradient passes inside the range, not outside."""
    scale, zero = scale_of(range)
    exact = x.astype(jnp.float32)
    kept = jnp.clip(exact, -zero * scale, (TOP - zero) * scale)
    values = (jnp.clip(jnp.round(exact / scale) + zero, 0, TOP) - zero) * scale
    return _straight_through(values, kept).astype(x.dtype)


def fake_dynamic(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """An activation as it is after quantizing between the least and the largest of its own values.

    What ONNX calls DynamicQuantizeLinear: one scale for all of `x`, so an example that is far out
    costs those beside it some precision.
    """
    exact = lax.stop_gradient(x.astype(jnp.float32))
    return fake_activation(x, jnp.stack([exact.min(), exact.max()]))


def _straight_through(
    values: Float[Array, "..."], exact: Float[Array, "..."]
) -> Float[Array, "..."]:
    """The values to the last bit, with the gradient of what they were rounded from."""
    return lax.stop_gradient(values) + (exact - lax.stop_gradient(exact))
