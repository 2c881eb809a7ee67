"""A convolution without groups, and its gradients as convolutions of XLA's fast form."""

import functools
import itertools

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from kdjax.models.convolution.axes import Axes, Axis, backward, cropped, elements
from kdjax.models.convolution.forms import patches, product, xla

_LARGE = 2**19
"""Numbers in an image from which it is moved by a convolution with the identity."""

_FEW = 128
"""Channels up to which it is."""

_THIN = 27
"""Numbers that a kernel meets at one place up to which they are written out, for one product."""


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def plain(x: Array, kernel: Array, axes: Axes) -> Array:
    """XLA's convolution, or a product, with gradients that are convolutions of XLA's fast form."""
    thin = x.shape[-1] * elements(axes) <= _THIN and all(axis.stride == 1 for axis in axes)
    return (patches if thin else xla)(x, kernel, axes)


def _plain_forward(x: Array, kernel: Array, axes: Axes):
    return plain(x, kernel, axes), (x, kernel)


def _plain_backward(axes: Axes, saved: tuple[Array, Array], g: Array):
    x, kernel = saved
    return _of_image(g, kernel, axes), _of_kernel(x, g, axes)


plain.defvjp(_plain_forward, _plain_backward)


def _of_image(g: Array, kernel: Array, axes: Axes) -> Array:
    """The gradient of the image.

    With a stride, the pixels of each phase of it meet elements of the kernel that no other phase's
    do: each is a convolution without a stride.
    """
    zero = jnp.zeros((), g.dtype)
    if any(axis.stride > 1 and axis.step > 1 for axis in axes):
        shape = (g.shape[0], *(axis.pixels for axis in axes), kernel.shape[-2])
        image = jax.ShapeDtypeStruct(shape, g.dtype)
        return jax.linear_transpose(lambda x: xla(x, kernel, axes), image)(g)[0]
    total: Array | None = None
    for phase in itertools.product(*(range(axis.stride) for axis in axes)):
        parts, within, chosen = [], [], []
        for r, axis in zip(phase, axes, strict=True):
            first = (r + axis.low) % axis.stride
            taps = len(range(first, axis.taps, axis.stride))
            pixels = len(range(r, axis.pixels, axis.stride))
            one = Axis(pixels, taps, 1, (r + axis.low) // axis.stride, 0, axis.step)
            parts.append(backward(one, pixels=axis.out))
            within.append((r, axis.pixels - r - (pixels - 1) * axis.stride - 1, axis.stride - 1))
            chosen.append(slice(first, None, axis.stride))
        if any(part.taps == 0 or part.out < 1 for part in parts):
            continue
        taps_of_phase = jnp.flip(kernel[tuple(chosen)], range(len(axes))).swapaxes(-1, -2)
        part = _without_groups(g, tuple(parts), taps_of_phase)
        if all(axis.stride == 1 for axis in axes):
            return part
        part = lax.pad(part, zero, ((0, 0, 0), *within, (0, 0, 0)))
        total = part if total is None else total + part
    if total is None:
        return jnp.zeros((g.shape[0], *(axis.pixels for axis in axes), kernel.shape[-2]), g.dtype)
    return total


def _of_kernel(x: Array, g: Array, axes: Axes) -> Array:
    """The gradient of the kernel: the image, of which each channel is an example, with `g` as kernel."""
    n = x.ndim
    image = _with_channels_first(x)
    kernel = g.transpose(*range(1, n - 1), 0, n - 1)
    swapped = []
    for axis in axes:
        reach = (axis.out - 1) * axis.stride + 1
        high = (axis.taps - 1) * axis.step + reach - axis.pixels - axis.low
        swapped.append(Axis(axis.pixels, axis.out, axis.step, axis.low, high, axis.stride))
    found = _without_groups(image, tuple(swapped), kernel)
    return found.transpose(*range(1, n - 1), 0, n - 1)


def _with_channels_first(x: Array) -> Array:
    """`[channel, *space, batch]`.

    Of a large image it is that of the convolution with the identity, which is exact: XLA:CPU would
    compute all that comes before again, normalisation and ReLU, pixel by pixel in the order of the
    result, which takes several times as long. With many channels the convolution costs more.
    """
    n, channels = x.ndim, x.shape[-1]
    if x.size >= _LARGE and channels <= _FEW:
        same = jnp.eye(channels, dtype=x.dtype).reshape(*(1,) * (n - 2), channels, channels)
        axes = tuple(Axis(pixels, 1, 1, 0, 0, 1) for pixels in x.shape[1:-1])
        x = xla(x, same, axes, precision="highest")
    return x.transpose(n - 1, *range(1, n - 1), 0)


def _without_groups(x: Array, axes: Axes, kernel: Array) -> Array:
    """XLA's convolution, or the product that it is."""
    x, axes = cropped(x, axes)
    if all(axis.taps == axis.stride == 1 and axis.low == axis.high == 0 for axis in axes):
        return product(x, kernel)
    return xla(x, kernel, axes)
