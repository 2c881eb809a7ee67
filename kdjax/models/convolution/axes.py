"""How a kernel goes over the axes of an image, and what it meets there."""

import itertools
import math
from collections.abc import Iterator
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array


class Axis(NamedTuple):
    """How a kernel goes along one axis of an image.

    The element `k` of the kernel and the output `o` meet the pixel `o * stride + k * step - low`.
    """

    pixels: int
    taps: int
    stride: int
    low: int
    high: int
    step: int

    @property
    def out(self) -> int:
        """How many places the kernel has."""
        reach = (self.taps - 1) * self.step + 1
        return (self.pixels + self.low + self.high - reach) // self.stride + 1

    def meets(self, tap: int) -> bool:
        """Whether an element of the kernel meets any pixel, and not the padding alone."""
        first = tap * self.step - self.low
        return any(0 <= first + o * self.stride < self.pixels for o in range(self.out))


Axes = tuple[Axis, ...]


def elements(axes: Axes) -> int:
    """How many elements the kernel has."""
    return math.prod(axis.taps for axis in axes)


def cropped(x: Array, axes: Axes) -> tuple[Array, Axes]:
    """Where a padding is negative: without those pixels. XLA:CPU has such convolutions wrong."""
    if all(axis.low >= 0 and axis.high >= 0 for axis in axes):
        return x, axes
    sides = ((min(axis.low, 0), min(axis.high, 0), 0) for axis in axes)
    x = lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), *sides, (0, 0, 0)))
    return x, tuple(
        axis._replace(pixels=pixels, low=max(axis.low, 0), high=max(axis.high, 0))
        for axis, pixels in zip(axes, x.shape[1:-1], strict=True)
    )


def _padded(x: Array, axes: Axes) -> Array:
    """With what the kernel meets beside the image."""
    sides = ((axis.low, axis.high, 0) for axis in axes)
    return lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), *sides, (0, 0, 0)))


def shifts(x: Array, axes: Axes) -> Iterator[tuple[tuple[int, ...], Array]]:
    """`(element of the kernel, [batch, *out, channel] that it meets)`, where that is not all padding."""
    image = _padded(x, axes)
    met = [[tap for tap in range(axis.taps) if axis.meets(tap)] for axis in axes]
    for place in itertools.product(*met):
        starts = [tap * axis.step for tap, axis in zip(place, axes, strict=True)]
        stops = [
            start + (axis.out - 1) * axis.stride + 1
            for start, axis in zip(starts, axes, strict=True)
        ]
        strides = (1, *(axis.stride for axis in axes), 1)
        yield (
            place,
            lax.slice(image, (0, *starts, 0), (x.shape[0], *stops, x.shape[-1]), strides),
        )


def backward(axis: Axis, *, pixels: int) -> Axis:
    """How the flipped kernel goes over the gradient of the output to give that of the image.

    That gradient has `pixels`. A stride is none of its own: its zeros, or phases, are made before.
    """
    low = (axis.taps - 1) * axis.step - axis.low
    high = axis.pixels + (axis.taps - 1) * axis.step - pixels - low
    return Axis(pixels, axis.taps, 1, low, high, axis.step)
