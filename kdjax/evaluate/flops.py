"""Floating-point operations of a function, counted in its jaxpr."""

import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.extend import core

# Loops of unknown length, per-device programs and calls whose inside is not ours to see.
_OPAQUE = (
    "call_exported",
    "custom_linear_solve",
    "dot_product_attention",
    "ffi_call",
    "io_callback",
    "pallas_call",
    "pure_callback",
    "ragged_dot_general",
    "scaled_dot",
    "scaled_matmul",
    "shard_map",
    "tpu_custom_call",
)


def flops(fn: Callable[..., Any], *args: Any) -> int:
    """Operations of `fn(*args)`: twice the multiply-accumulates of its convolutions and products.

    Only `conv_general_dilated` and `dot_general` count, as in published tables; biases, norms,
    activations and pooling do not. Nothing is run. Conventions:

    * Padding counts as full: an output at the border costs what one in the middle does.
    * The holes of a transposed convolution (`lhs_dilation`) are not multiplied and do not count.
    * Sparsity does not show: a masked weight counts, one that shrinking removed does not.
    * A `scan` counts `length` times, a `cond` as its most expensive branch.
    * The function is counted as traced; XLA may still drop what no output needs.

    Args:
      fn: any function that jax can trace, jitted or not.
      *args: its arguments, as arrays or `jax.ShapeDtypeStruct`s. The count is of the whole batch:
        pass one example for operations per example.

    Raises:
      ValueError: products sit where their number is not known: in a `while`, a sharded program, a
        custom kernel or a call of an exported model.
    """
    return 2 * _macs(jax.make_jaxpr(fn)(*args))


def equation_flops(equation: Any) -> int:
    """Operations of one equation of a jaxpr, as `flops` counts them."""
    return 2 * _macs_of_equation(equation)


def _macs(jaxpr) -> int:
    """Multiply-accumulates of one jaxpr (open or closed: both have `eqns`)."""
    return sum(_macs_of_equation(equation) for equation in jaxpr.eqns)


def _macs_of_equation(equation) -> int:
    name, params = equation.primitive.name, equation.params
    if name == "conv_general_dilated":
        return _macs_of_conv(equation)
    if name == "dot_general":
        lhs, out = equation.invars[0].aval.shape, equation.outvars[0].aval.shape
        (contracted, _), _ = params["dimension_numbers"]
        return math.prod(out) * math.prod(lhs[axis] for axis in contracted)
    if name == "scan":
        return params["length"] * _macs(params["jaxpr"])
    if name == "cond":
        return max(_macs(branch) for branch in params["branches"])
    if name.startswith(_OPAQUE):
        raise ValueError(f"cannot count the operations of {name!r}: its inside is not visible")
    # jit, remat, custom_jvp, custom_vjp and the like: the body, once.
    inside = sum(_macs(sub) for sub in core.jaxprs_in_params(params))
    if name == "while" and inside:
        raise ValueError("cannot count a 'while' with products inside: give it a fixed length")
    return inside


def _macs_of_conv(equation) -> int:
    """Outputs times kernel taps times the input channels that one output sees.

    The kernel's own input-channel axis is already divided by `feature_group_count`, and the batch
    axis of the output by `batch_group_count`, so neither appears here.
    """
    params = equation.params
    kernel, out = equation.invars[1].aval.shape, equation.outvars[0].aval.shape
    numbers = params["dimension_numbers"]
    out_batch, out_channel, *out_spatial = numbers.out_spec
    _, in_channel, *kernel_spatial = numbers.rhs_spec
    taps = map(
        _taps,
        [out[axis] for axis in out_spatial],
        [kernel[axis] for axis in kernel_spatial],
        params["window_strides"],
        [low for low, _ in params["padding"]],
        params["lhs_dilation"],
        params["rhs_dilation"],
    )
    return out[out_batch] * out[out_channel] * kernel[in_channel] * math.prod(taps)


def _taps(out: int, kernel: int, stride: int, low: int, hole: int, dilation: int) -> int:
    """Pairs of (output, kernel tap) along one axis that do not fall into a hole of the input."""
    if hole == 1:
        return out * kernel
    start = np.arange(out)[:, None] * stride - low
    return int(np.count_nonzero((start + np.arange(kernel) * dilation) % hole == 0))
