"""The convolution of a train step on CPU: the sums of `lax.conv_general_dilated` in a fast order.

XLA:CPU has one fast convolution: channels last, without groups, the image larger than the kernel.
What is not of this form is a plain loop, up to a hundred times slower: depthwise kernels, images of a
few pixels, gradients with a stride, and any gradient inside `lax.scan`, which XLA does not rewrite
there. `convolve` writes all of them as convolutions of that form, products or sums, by the shapes:

    shape                                forward             gradients, of image and kernel
    a kernel of one pixel                XLA's               products
    a stride as large as the kernel      product             products
    an image smaller than the kernel     patches, product    products and sums
    one group a channel                  shifted sums        shifted sums
    up to 3x3 of 3 channels, no stride   patches, product    as the next
    any other without groups             XLA's               XLA's fast form, by phase; transposed
    any other with groups                XLA's               XLA's

`tests/benchmarks/convolution.py` measures each rule against what it replaces.
"""

import functools
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, ParamSpec, TypeVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from kdjax.bound import attributes

_LARGE = 2**19
"""Numbers in an image from which it is moved by a convolution with the identity."""

_FEW = 128
"""Channels up to which it is."""

_THIN = 27
"""Numbers that a kernel meets at one place up to which they are written out, for one product."""

_MANY = 49
"""Elements of a kernel up to which its places are written out, one sum each."""

P = ParamSpec("P")
T = TypeVar("T")


def with_fast_convolutions(f: Callable[P, T]) -> Callable[P, T]:
    """`f` whose `flax.linen.Conv` layers, also those of one's own models, are run by `convolve`.

    For what is compiled and run on CPU. What is exported, shrunk, quantized or counted stays as it is
    written: XLA's `conv_general_dilated` is what those parts look for.
    """

    # Not a method: linen would intercept it, too.
    def fast(method, args, kwargs, context):
        layer = context.module
        if (
            not isinstance(layer, nn.Conv)
            or context.method_name != "__call__"
            or layer.conv_general_dilated is not None
            or layer.conv_general_dilated_cls is not None
        ):
            return method(*args, **kwargs)
        with attributes(layer, conv_general_dilated=convolve):
            return method(*args, **kwargs)

    @functools.wraps(f)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
        with nn.intercept_methods(fast):
            return f(*args, **kwargs)

    return wrapped


class _Axis(NamedTuple):
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


_Axes = tuple[_Axis, ...]


def convolve(
    lhs: Array,
    rhs: Array,
    window_strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: Any = None,
    feature_group_count: int = 1,
    **others: Any,
) -> Array:
    """`lax.conv_general_dilated`, as the `conv_general_dilated` of a `flax.linen.Conv`.

    Values and both gradients are those of it up to the order of their sums. Channels-last float32
    arrays have a faster order on CPU; whatever else it is given goes to XLA as it comes. It is
    differentiated in reverse alone.
    """
    spatial = lhs.ndim - 2
    steps = (1,) * spatial if rhs_dilation is None else tuple(rhs_dilation)
    if (
        lhs.dtype != jnp.float32
        or rhs.dtype != jnp.float32
        or not _channels_last(lax.conv_dimension_numbers(lhs.shape, rhs.shape, dimension_numbers))
        or any(dilation != 1 for dilation in lhs_dilation or ())
        or any(value not in (None, 1) for value in others.values())
    ):
        axes: _Axes = ()
    else:
        if isinstance(padding, str):
            reach = [(k - 1) * d + 1 for k, d in zip(rhs.shape[:-2], steps, strict=True)]
            padding = lax.padtype_to_pads(lhs.shape[1:-1], reach, window_strides, padding)
        axes = tuple(
            _Axis(pixels, taps, stride, low, high, step)
            for pixels, taps, stride, (low, high), step in zip(
                lhs.shape[1:-1], rhs.shape[:-2], window_strides, padding, steps, strict=True
            )
        )
    if not axes or 0 in lhs.shape or 0 in rhs.shape or any(axis.out < 1 for axis in axes):
        return lax.conv_general_dilated(
            lhs,
            rhs,
            window_strides,
            padding,
            lhs_dilation,
            rhs_dilation,
            dimension_numbers,
            feature_group_count,
            **others,
        )
    return _chosen(*_cropped(lhs, axes), rhs, feature_group_count)


def _count(axes: _Axes) -> int:
    return math.prod(axis.taps for axis in axes)


def _channels_last(numbers: lax.ConvDimensionNumbers) -> bool:
    lhs, rhs, out = numbers
    n = len(lhs)
    last = (0, n - 1, *range(1, n - 1))
    return (tuple(lhs), tuple(rhs), tuple(out)) == (last, (n - 1, n - 2, *range(n - 2)), last)


def _cropped(x: Array, axes: _Axes) -> tuple[Array, _Axes]:
    """Where a padding is negative: without those pixels. XLA:CPU has such convolutions wrong."""
    if all(axis.low >= 0 and axis.high >= 0 for axis in axes):
        return x, axes
    sides = ((min(axis.low, 0), min(axis.high, 0), 0) for axis in axes)
    x = lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), *sides, (0, 0, 0)))
    return x, tuple(
        axis._replace(pixels=pixels, low=max(axis.low, 0), high=max(axis.high, 0))
        for axis, pixels in zip(axes, x.shape[1:-1], strict=True)
    )


def _chosen(x: Array, axes: _Axes, kernel: Array, groups: int) -> Array:
    channels = x.shape[-1]
    if groups == channels > 1 and _count(axes) <= _MANY:
        return _depthwise(x, kernel, axes)
    if groups > 1:
        return _xla(x, kernel, axes, groups)
    unpadded = all(axis.low == axis.high == 0 for axis in axes)
    if unpadded and all(axis.taps == 1 for axis in axes):
        return _pointwise(x, kernel, axes)
    if unpadded and all(
        axis.taps == axis.stride and axis.step == 1 and axis.pixels % axis.stride == 0
        for axis in axes
    ):
        return _product(_tiles(x, axes), kernel)
    if any(axis.pixels < axis.taps for axis in axes) and _count(axes) <= _MANY:
        return _patches(x, kernel, axes)
    return _plain(x, kernel, axes)


def _xla(
    x: Array, kernel: Array, axes: _Axes, groups: int = 1, precision: str | None = None
) -> Array:
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


def _product(x: Array, kernel: Array) -> Array:
    """`[..., taps * channel]` and a kernel of `[*taps, channel, feature]`."""
    kernel = kernel.reshape(-1, kernel.shape[-1])
    return lax.dot_general(x, kernel, (((x.ndim - 1,), (0,)), ((), ())))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _pointwise(x: Array, kernel: Array, axes: _Axes) -> Array:
    """A kernel of one pixel.

    Of an image XLA's convolution takes what any other layer takes of it; a product would have what
    comes before computed once more, in a shape of its own. The gradients are products.
    """
    if all(axis.pixels == 1 for axis in axes):
        return _product(x, kernel)
    return _xla(x, kernel, axes)


def _pointwise_forward(x: Array, kernel: Array, axes: _Axes):
    return _pointwise(x, kernel, axes), (x, kernel)


def _pointwise_backward(axes: _Axes, saved: tuple[Array, Array], g: Array):
    x, kernel = saved
    dx = _product(g, kernel.swapaxes(-1, -2))
    between = (
        (0, axis.pixels - (axis.out - 1) * axis.stride - 1, axis.stride - 1) for axis in axes
    )
    dx = lax.pad(dx, jnp.zeros((), dx.dtype), ((0, 0, 0), *between, (0, 0, 0)))
    met = x[(slice(None), *(slice(None, None, axis.stride) for axis in axes))]
    places = tuple(range(g.ndim - 1))
    return dx, lax.dot_general(met, g, ((places, places), ((), ()))).reshape(kernel.shape)


_pointwise.defvjp(_pointwise_forward, _pointwise_backward)


def _tiles(x: Array, axes: _Axes) -> Array:
    """`[batch, *out, taps * channel]` of a kernel that goes over each pixel once."""
    sides = [side for axis in axes for side in (axis.out, axis.taps)]
    x = x.reshape(x.shape[0], *sides, x.shape[-1])
    n = 2 * len(axes)
    x = x.transpose(0, *range(1, n, 2), *range(2, n + 1, 2), n + 1)
    return x.reshape(x.shape[0], *(axis.out for axis in axes), -1)


def _padded(x: Array, axes: _Axes) -> Array:
    """With what the kernel meets beside the image."""
    sides = ((axis.low, axis.high, 0) for axis in axes)
    return lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), *sides, (0, 0, 0)))


def _taps(x: Array, axes: _Axes) -> Iterator[tuple[tuple[int, ...], Array]]:
    """`(element of the kernel, [batch, *out, channel] that it meets)`, where that is not all padding."""
    padded = _padded(x, axes)
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
            lax.slice(padded, (0, *starts, 0), (x.shape[0], *stops, x.shape[-1]), strides),
        )


def _patches(x: Array, kernel: Array, axes: _Axes) -> Array:
    """What the kernel meets at each of its places, side by side, and one product."""
    met = dict(_taps(x, axes))
    if not met:
        return _xla(x, kernel, axes)
    return _product(
        jnp.concatenate(list(met.values()), axis=-1), jnp.stack([kernel[place] for place in met])
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _depthwise(x: Array, kernel: Array, axes: _Axes) -> Array:
    """Each channel with kernels of its own, `[*taps, 1, channel * multiplier]`."""
    batch, channels, features = x.shape[0], x.shape[-1], kernel.shape[-1]
    kernel = kernel.reshape(*kernel.shape[:-2], channels, features // channels)
    total: Array = jnp.zeros((), x.dtype)
    for place, pixels in _taps(x, axes):
        total = total + pixels[..., None] * lax.expand_dims(kernel[place], range(len(axes) + 1))
    out = (batch, *(axis.out for axis in axes))
    return jnp.broadcast_to(total, (*out, channels, features // channels)).reshape(*out, features)


def _depthwise_forward(x: Array, kernel: Array, axes: _Axes):
    return _depthwise(x, kernel, axes), (x, kernel)


def _depthwise_backward(axes: _Axes, saved: tuple[Array, Array], g: Array):
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
    backwards = tuple(_backwards(axis, pixels=(axis.out - 1) * axis.stride + 1) for axis in axes)
    turned = jnp.flip(kernel, range(len(axes))).reshape(*kernel.shape[:-2], 1, channels, many)
    dx = sum(
        (_depthwise(spread[..., i], turned[..., i], backwards) for i in range(1, many)),
        _depthwise(spread[..., 0], turned[..., 0], backwards),
    )
    places = tuple(range(len(axes) + 1))
    g = g.reshape(*g.shape[:-1], channels, many)
    sums = {
        place: (pixels[..., None] * g).sum(places).reshape(1, -1)
        for place, pixels in _taps(x, axes)
    }
    nothing = jnp.zeros((1, kernel.shape[-1]), kernel.dtype)
    taps = itertools.product(*(range(axis.taps) for axis in axes))
    dkernel = jnp.stack([sums.get(place, nothing) for place in taps]).reshape(kernel.shape)
    return dx, dkernel


_depthwise.defvjp(_depthwise_forward, _depthwise_backward)


def _backwards(axis: _Axis, *, pixels: int) -> _Axis:
    """How the flipped kernel goes over the gradient of the output to give that of the image.

    That gradient has `pixels`. A stride is none of its own: its zeros, or phases, are made before.
    """
    low = (axis.taps - 1) * axis.step - axis.low
    high = axis.pixels + (axis.taps - 1) * axis.step - pixels - low
    return _Axis(pixels, axis.taps, 1, low, high, axis.step)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _plain(x: Array, kernel: Array, axes: _Axes) -> Array:
    """XLA's convolution, or a product, with gradients that are convolutions of XLA's fast form."""
    thin = x.shape[-1] * _count(axes) <= _THIN and all(axis.stride == 1 for axis in axes)
    return (_patches if thin else _xla)(x, kernel, axes)


def _plain_forward(x: Array, kernel: Array, axes: _Axes):
    return _plain(x, kernel, axes), (x, kernel)


def _plain_backward(axes: _Axes, saved: tuple[Array, Array], g: Array):
    x, kernel = saved
    return _of_image(g, kernel, axes), _of_kernel(x, g, axes)


_plain.defvjp(_plain_forward, _plain_backward)


def _of_image(g: Array, kernel: Array, axes: _Axes) -> Array:
    """The gradient of the image.

    With a stride, the pixels of each phase of it meet elements of the kernel that no other phase's
    do: each is a convolution without a stride.
    """
    zero = jnp.zeros((), g.dtype)
    if any(axis.stride > 1 and axis.step > 1 for axis in axes):
        shape = (g.shape[0], *(axis.pixels for axis in axes), kernel.shape[-2])
        image = jax.ShapeDtypeStruct(shape, g.dtype)
        return jax.linear_transpose(lambda x: _xla(x, kernel, axes), image)(g)[0]
    total: Array | None = None
    for phase in itertools.product(*(range(axis.stride) for axis in axes)):
        parts, within, chosen = [], [], []
        for r, axis in zip(phase, axes, strict=True):
            first = (r + axis.low) % axis.stride
            taps = len(range(first, axis.taps, axis.stride))
            pixels = len(range(r, axis.pixels, axis.stride))
            one = _Axis(pixels, taps, 1, (r + axis.low) // axis.stride, 0, axis.step)
            parts.append(_backwards(one, pixels=axis.out))
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


def _of_kernel(x: Array, g: Array, axes: _Axes) -> Array:
    """The gradient of the kernel: the image, of which each channel is an example, with `g` as kernel."""
    n = x.ndim
    image = _with_channels_first(x)
    kernel = g.transpose(*range(1, n - 1), 0, n - 1)
    swapped = []
    for axis in axes:
        reach = (axis.out - 1) * axis.stride + 1
        high = (axis.taps - 1) * axis.step + reach - axis.pixels - axis.low
        swapped.append(_Axis(axis.pixels, axis.out, axis.step, axis.low, high, axis.stride))
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
        axes = tuple(_Axis(pixels, 1, 1, 0, 0, 1) for pixels in x.shape[1:-1])
        x = _xla(x, same, axes, precision="highest")
    return x.transpose(n - 1, *range(1, n - 1), 0)


def _without_groups(x: Array, axes: _Axes, kernel: Array) -> Array:
    """XLA's convolution, or the product that it is."""
    x, axes = _cropped(x, axes)
    if all(axis.taps == axis.stride == 1 and axis.low == axis.high == 0 for axis in axes):
        return _product(x, kernel)
    return _xla(x, kernel, axes)
