"""Forms of a convolution that are fast on a CPU: XLA's own, and products."""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from kdjax.models.convolution.axes import Axes, shifts


def xla(
    x: Array, kernel: Array, axes: Axes, groups: int = 1, precision: str | None = None
) -> Array:
    """XLA's convolution, channels last."""
    space = "DHW"[3 - len(axes) :]
    return lax.conv_general_dilated(
        x,
        kernel,
        [axis.stride for axis in axes],
        [(axis.low, axis.high) for axis in axes],
        rhs_dilation=[axis.step for axis in axes],
        dimension_numbers=(f"N{space}C", f"{space}IO", f"N{space}C"),
        feature_group_count=groups,
        precision=precision,
    )


def product(x: Array, kernel: Array) -> Array:
    """`[..., taps * channel]` and a kernel of `[*taps, channel, feature]`."""
    kernel = kernel.reshape(-1, kernel.shape[-1])
    return lax.dot_general(x, kernel, (((x.ndim - 1,), (0,)), ((), ())))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def pointwise(x: Array, kernel: Array, axes: Axes) -> Array:
    """A kernel of one pixel.

    Of an image XLA's convolution takes what any other layer takes of it; a product would have what
    comes before computed once more, in a shape of its own. The gradients are products.
    """
    if all(axis.pixels == 1 for axis in axes):
        return product(x, kernel)
    return xla(x, kernel, axes)


def _pointwise_forward(x: Array, kernel: Array, axes: Axes):
    return pointwise(x, kernel, axes), (x, kernel)


def _pointwise_backward(axes: Axes, saved: tuple[Array, Array], g: Array):
    x, kernel = saved
    dx = product(g, kernel.swapaxes(-1, -2))
    between = (
        (0, axis.pixels - (axis.out - 1) * axis.stride - 1, axis.stride - 1) for axis in axes
    )
    dx = lax.pad(dx, jnp.zeros((), dx.dtype), ((0, 0, 0), *between, (0, 0, 0)))
    met = x[(slice(None), *(slice(None, None, axis.stride) for axis in axes))]
    places = tuple(range(g.ndim - 1))
    return dx, lax.dot_general(met, g, ((places, places), ((), ()))).reshape(kernel.shape)


pointwise.defvjp(_pointwise_forward, _pointwise_backward)


def tiles(x: Array, axes: Axes) -> Array:
    """`[batch, *out, taps * channel]` of a kernel that goes over each pixel once."""
    sides = [side for axis in axes for side in (axis.out, axis.taps)]
    x = x.reshape(x.shape[0], *sides, x.shape[-1])
    n = 2 * len(axes)
    x = x.transpose(0, *range(1, n, 2), *range(2, n + 1, 2), n + 1)
    return x.reshape(x.shape[0], *(axis.out for axis in axes), -1)


def patches(x: Array, kernel: Array, axes: Axes) -> Array:
    """What the kernel meets at each of its places, side by side, and one product."""
    met = dict(shifts(x, axes))
    if not met:
        return xla(x, kernel, axes)
    return product(
        jnp.concatenate(list(met.values()), axis=-1), jnp.stack([kernel[place] for place in met])
    )
