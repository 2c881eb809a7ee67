"""Pooling for jax2onnx: paddings that it does not know, and reductions over windows that are poolings."""

import inspect
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax.linen import pooling
from jax import lax
from jaxtyping import Array

POOLS = {
    "avg_pool": (pooling.avg_pool, 0.0),
    "max_pool": (pooling.max_pool, -np.inf),
    "min_pool": (pooling.min_pool, np.inf),
}
"""As linen has them, and what is in their paddings."""


def padded(
    replaced: Callable[..., Any], own: Callable[..., Any], outside: float
) -> Callable[..., Any]:
    """jax2onnx's function for what it knows of, linen's for the rest; `outside` is in a padding."""
    signature = inspect.signature(own)

    def pool(*args, **kwargs):
        given = signature.bind(*args, **kwargs).arguments
        images, window = next(iter(given.values())), given["window_shape"]
        rest = dict(list(given.items())[1:])
        if rest.keys() - {"window_shape", "strides", "padding"} or images.ndim != len(window) + 2:
            return own(*args, **kwargs)
        if not isinstance(padding := rest.get("padding", "VALID"), str):
            pairs = [(0, 0), *padding, (0, 0)]
            images = jnp.pad(images, pairs, constant_values=outside)
            rest["padding"] = "VALID"
        return replaced(images, **rest)

    return pool


def named(inputs: Array, init: Any, reduce_fn: Any, *args: Any, **kwargs: Any) -> Any:
    """`nn.pool` as `nn.max_pool` or `nn.min_pool` where it is one, as linen has it where it is not."""
    for combine, outside, name in (
        (lax.max, -np.inf, "max_pool"),
        (lax.min, np.inf, "min_pool"),
    ):
        if reduce_fn is combine and np.ndim(init) == 0 and init == outside:
            return getattr(pooling, name)(inputs, *args, **kwargs)
    return _POOL(inputs, init, reduce_fn, *args, **kwargs)


_POOL = pooling.pool


def of_windows(name: str) -> Callable[..., Any]:
    """A reduction over windows by `nn.max_pool` or `nn.min_pool`, which jax2onnx has one operator for.

    Gives None where it is none: where windows are on the first or the last axis, have holes, or are of
    integers.
    """
    _, outside = POOLS[name]

    def reduced(x: Any, **params: Any) -> Any:
        windows, strides = params["window_dimensions"], params["window_strides"]
        ends = {(windows[i], strides[i], *params["padding"][i]) for i in (0, -1)}
        holes = {*params["base_dilation"], *params["window_dilation"]} != {1}
        if (
            x.ndim < 3
            or ends != {(1, 1, 0, 0)}
            or holes
            or x.dtype not in (jnp.float32, jnp.float16)
        ):
            return None
        if any(side for pair in params["padding"] for side in pair):
            x = jnp.pad(x, params["padding"], constant_values=outside)
        return getattr(pooling, name)(x, window_shape=windows[1:-1], strides=strides[1:-1])

    return reduced
