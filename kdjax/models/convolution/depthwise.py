"""A convolution of each channel by itself, as sums of shifted images."""

import functools
import itertools

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from kdjax.models.convolution.axes import Axes, backward, shifts


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def depthwise(x: Array, kernel: Array, axes: Axes) -> Array:
    """Each channel with kernels of its own, `[*taps, 1, channel * multiplier]`."""
    batch, channels, features = x.shape[0], x.shape[-1], kernel.shape[-1]
    kernel = kernel.reshape(*kernel.shape[:-2], channels, features // channels)
    total: Array = jnp.zeros((), x.dtype)
    for place, pixels in shifts(x, axes):
        total = total + pixels[..., None] * lax.expand_dims(kernel[place], range(len(axes) + 1))
    out = (batch, *(axis.out for axis in axes))
    return jnp.broadcast_to(total, (*out, channels, features // channels)).reshape(*out, features)


def _depthwise_forward(x: Array, kernel: Array, axes: Axes):
    return depthwise(x, kernel, axes), (x, kernel)


def _depthwise_backward(axes: Axes, saved: tuple[Array, Array], g: Array):
    x, kernel = saved
    channels = x.shape[-1]
    many = kernel.shape[-1] // channels
    # Where the stride left places out there are zeros, and the kernel goes over it backwards.
    spread = lax.pad(
        g,
        jnp.zeros((), g.dtype),
        ((0, 0, 0), *((0, 0, axis.stride - 1) for axis in axes), (0, 0, 0)),
    )
    spread = spread.reshape(*spread.shape[:-1], channels, many)
    backwards = tuple(backward(axis, pixels=(axis.out - 1) * axis.stride + 1) for axis in axes)
    turned = jnp.flip(kernel, range(len(axes))).reshape(*kernel.shape[:-2], 1, channels, many)
    dx = sum(
        (depthwise(spread[..., i], turned[..., i], backwards) for i in range(1, many)),
        depthwise(spread[..., 0], turned[..., 0], backwards),
    )
    places = tuple(range(len(axes) + 1))
    g = g.reshape(*g.shape[:-1], channels, many)
    sums = {
        place: (pixels[..., None] * g).sum(places).reshape(1, -1)
        for place, pixels in shifts(x, axes)
    }
    nothing = jnp.zeros((1, kernel.shape[-1]), kernel.dtype)
    taps = itertools.product(*(range(axis.taps) for axis in axes))
    dkernel = jnp.stack([sums.get(place, nothing) for place in taps]).reshape(kernel.shape)
    return dx, dkernel


depthwise.defvjp(_depthwise_forward, _depthwise_backward)
