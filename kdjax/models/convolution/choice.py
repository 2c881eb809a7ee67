"""Which form a convolution is run in, by its shapes; and layers that are run so."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypeVar

import flax.linen as nn
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from kdjax.bound import attributes
from kdjax.models.convolution.axes import Axes, Axis, cropped, elements
from kdjax.models.convolution.depthwise import depthwise
from kdjax.models.convolution.forms import patches, pointwise, product, tiles, xla
from kdjax.models.convolution.plain import plain

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
        axes: Axes = ()
    else:
        if isinstance(padding, str):
            reach = [(k - 1) * d + 1 for k, d in zip(rhs.shape[:-2], steps, strict=True)]
            padding = lax.padtype_to_pads(lhs.shape[1:-1], reach, window_strides, padding)
        axes = tuple(
            Axis(pixels, taps, stride, low, high, step)
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
    return _chosen(*cropped(lhs, axes), rhs, feature_group_count)


def _channels_last(numbers: lax.ConvDimensionNumbers) -> bool:
    lhs, rhs, out = numbers
    n = len(lhs)
    last = (0, n - 1, *range(1, n - 1))
    return (tuple(lhs), tuple(rhs), tuple(out)) == (last, (n - 1, n - 2, *range(n - 2)), last)


def _chosen(x: Array, axes: Axes, kernel: Array, groups: int) -> Array:
    channels = x.shape[-1]
    if groups == channels > 1 and elements(axes) <= _MANY:
        return depthwise(x, kernel, axes)
    if groups > 1:
        return xla(x, kernel, axes, groups)
    unpadded = all(axis.low == axis.high == 0 for axis in axes)
    if unpadded and all(axis.taps == 1 for axis in axes):
        return pointwise(x, kernel, axes)
    if unpadded and all(
        axis.taps == axis.stride and axis.step == 1 and axis.pixels % axis.stride == 0
        for axis in axes
    ):
        return product(tiles(x, axes), kernel)
    if any(axis.pixels < axis.taps for axis in axes) and elements(axes) <= _MANY:
        return patches(x, kernel, axes)
    return plain(x, kernel, axes)
