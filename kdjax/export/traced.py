"""A model as the operations that are left of it: what depends on no input is computed beforehand.

For a converter that knows each operation but not all of them at an open batch size: those are made of
others here.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from kdjax.export.pools import of_windows
from kdjax.jaxprs import Step, flatten


def traced(function: Callable[..., Any], *inputs: jax.ShapeDtypeStruct) -> Callable[..., Any]:
    """`function(*inputs)`, traced here and now, as a function that does nothing but these operations.

    Args:
      function: of arrays, giving one or several.
      *inputs: their shapes; a dimension may be symbolic.
    """
    flat = flatten(jax.make_jaxpr(function)(*inputs), into=lambda inside: True)
    known: dict[int, Any] = dict(flat.consts)

    def read(values: Mapping[int, Any], operands: Sequence[Any]) -> list[Any]:
        return [values[x] if isinstance(x, int) else x.val for x in operands]

    left: list[Step] = []
    for step in flat.steps:
        fixed = all(not isinstance(x, int) or x in known for x in step.operands)
        shapes = [v.aval.shape for v in step.equation.outvars]
        sized = all(isinstance(size, int) for shape in shapes for size in shape)
        if fixed and sized and not step.equation.effects:
            known.update(zip(step.results, _bind(step, read(known, step.operands)), strict=True))
        else:
            left.append(step)
    wanted = {x for x in flat.outputs if isinstance(x, int)}
    steps: list[Step] = []
    for step in reversed(left):
        if step.equation.effects or wanted & set(step.results):
            steps.insert(0, step)
            wanted |= {x for x in step.operands if isinstance(x, int)}

    def run(*inputs: Any) -> Any:
        values = {n: x for n, x in known.items() if n in wanted}
        values |= zip(flat.inputs, inputs, strict=True)
        for step in steps:
            given = read(values, step.operands)
            made = _MADE_OF_OTHERS.get(step.name, lambda *given, **params: None)
            found = made(*given, **step.equation.params)
            found = _bind(step, given) if found is None else [found]
            values.update(zip(step.results, found, strict=True))
        found = read(values, flat.outputs)
        return found[0] if len(found) == 1 else tuple(found)

    return run


def _bind(step: Step, given: Sequence[Any]) -> Sequence[Any]:
    primitive = step.equation.primitive
    found = primitive.bind(*given, **primitive.get_bind_params(step.equation.params))
    return found if primitive.multiple_results else [found]


def _rem(x: Any, y: Any, **params: Any) -> Any:
    """`x - (x / y) y` of integers, whose quotient is rounded toward zero."""
    if not jnp.issubdtype(x.dtype, jnp.integer):
        return None
    return lax.sub(x, lax.mul(lax.div(x, y), y))


def _pad(x: Any, value: Any, *, padding_config: Any, **params: Any) -> Any:
    """Constants before and behind; None where entries go, or come in between."""
    if any(low < 0 or high < 0 or inner for low, high, inner in padding_config):
        return None
    for axis, (low, high, _) in enumerate(padding_config):
        before, behind = (
            [lax.broadcast(value, (*x.shape[:axis], size, *x.shape[axis + 1 :]))] if size else []
            for size in (low, high)
        )
        x = lax.concatenate([*before, x, *behind], axis) if before or behind else x
    return x


def _windows(combine: Callable[[Any, Any], Any], outside: Callable[[Any], Any]):
    """A reduction over windows, axis after axis, as one of slices."""

    def reduced(x: Any, **params: Any) -> Any:
        if math.prod(params["base_dilation"]) != 1:
            return None
        padding = [(low, high, 0) for low, high in params["padding"]]
        x = _pad(x, np.asarray(outside(x.dtype), x.dtype), padding_config=padding)
        if x is None:
            return None
        names = ("window_dimensions", "window_strides", "window_dilation")
        for axis, (size, stride, dilation) in enumerate(
            zip(*(params[n] for n in names), strict=True)
        ):
            if size == 1 and stride == 1:
                continue
            last = (size - 1) * dilation
            length = (x.shape[axis] - last - 1) // stride + 1
            slices = [
                lax.slice_in_dim(x, at, at + (length - 1) * stride + 1, stride, axis)
                for at in range(0, last + 1, dilation)
            ]
            x = slices[0]
            for other in slices[1:]:
                x = combine(x, other)
        return x

    return reduced


def _either(*ways: Callable[..., Any]) -> Callable[..., Any]:
    """The first that gives anything."""

    def made(*given: Any, **params: Any) -> Any:
        return next(filter(_is_there, (way(*given, **params) for way in ways)), None)

    return made


def _is_there(value: Any) -> bool:
    return value is not None


def _least(dtype: Any) -> Any:
    return -np.inf if jnp.issubdtype(dtype, jnp.floating) else jnp.iinfo(dtype).min


def _largest(dtype: Any) -> Any:
    return np.inf if jnp.issubdtype(dtype, jnp.floating) else jnp.iinfo(dtype).max


_MADE_OF_OTHERS: Mapping[str, Callable[..., Any]] = {
    "pad": _pad,
    "reduce_window_max": _either(of_windows("max_pool"), _windows(lax.max, _least)),
    "reduce_window_min": _either(of_windows("min_pool"), _windows(lax.min, _largest)),
    "reduce_window_sum": _windows(lax.add, lambda dtype: 0),
    "rem": _rem,
}
"""By the primitive: what it is made of, or None for this one."""
