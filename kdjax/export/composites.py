"""A quantized model as a function that says of itself where its integers are, for a converter."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from kdjax.quant import TOP, Layer, Rule, graph_of, run, scale_of, static, stored
from kdjax.types import Variables

FAKE_QUANT = "quant.fake_quant"
"""The composite that LiteRT's converter makes integers of, as qwix writes it."""

_SHIFT = 128  # LiteRT's activations are signed


def with_composites(
    function: Callable[..., Any],
    variables: Variables,
    *inputs: Any,
    rules: Mapping[str, Rule],
    ranges: Mapping[str, Float[Any, "2"]],
) -> Callable[..., Any]:
    """`*inputs -> outputs` with the parameters inside, each rounding a `lax.composite`.

    Args:
      function: the model in evaluation, in float.
      variables: of it, without ranges.
      *inputs: arrays or shapes of one call.
      rules: by the name of the layer's parameter.
      ranges: by the name of the tensor.
    """
    graph = graph_of(function, variables, *inputs)
    tensors = graph.tensors(static(rules))
    # LiteRT has one operator for a hard swish, in integers too: what is inside of it is not rounded.
    inside = {
        tensors[times.gate]
        for times in graph.gated
        if times.gate in tensors and graph.source(times.value) == graph.source(times.of)
    }
    # Numbers of the file, not of the program: found before it is traced.
    parameters = graph.parameters(variables, *inputs, names=rules)
    found = zip(parameters, stored(parameters, rules), strict=True)
    integers = {layer.name: own for (layer, _), own in found if own is not None}
    scales = {
        name: tuple(float(number) for number in scale_of(np.asarray(ends, np.float32)))
        for name, ends in ranges.items()
    }

    def activation(name: str, value: Array) -> Array:
        if name in inside:
            return value
        scale, zero = scales[name]
        return _fake_quant(value, np.asarray([scale], np.float32), int(zero) - _SHIFT, axis=None)

    def parameter(layer: Layer, value: Array, rule: Rule) -> Array:
        weights = integers[layer.name]
        values = np.asarray(weights.values)
        scale = np.broadcast_to(np.asarray(weights.scale), values.shape)
        # One axis can have scales: those of a head and of its entries are one axis for a while.
        inner = [axis for axis in range(values.ndim) if axis not in layer.channels]
        order = [*inner, *layer.channels]
        moved = [values.shape[axis] for axis in order]
        flat = [*moved[: len(inner)], -1]
        values, scale = (x.transpose(order).reshape(flat) for x in (values, scale))
        found = _fake_quant(
            jnp.asarray(values), scale[(0,) * len(inner)], 0, axis=len(inner)
        ).reshape(moved)
        return jnp.transpose(found, [order.index(axis) for axis in range(len(order))])

    return lambda *inputs: run(
        function,
        variables,
        *inputs,
        rules=rules,
        fake=activation,
        fake_weights=parameter,
        fake_input=lambda layer, value, rule: value,  # LiteRT's own: see `quantize_in_the_call`
    )


def _fake_quant(
    value: Array, scale: Float[np.ndarray, " scales"], zero: int, *, axis: int | None
) -> Array:
    """Rounded to int8 and back; of a parameter, whose scales are along `axis`, without -128."""
    attributes: dict[str, Any] = {
        "scale": scale,
        "zero_point": np.full(scale.shape, zero),
        "dtype": "i8",
        "narrow_range": axis is not None,
    }
    shape = [1] * value.ndim
    if axis is not None:
        attributes["quantization_dimension"] = axis
        shape[axis] = -1
    step, low = scale.reshape(shape), zero if axis is None else 0

    @functools.partial(lax.composite, name=FAKE_QUANT)
    def rounded(value, **attributes):
        least = -127 if axis is not None else -_SHIFT
        level = jnp.clip(jnp.round(value / step) + low, least, TOP - _SHIFT)
        return (level - low) * step

    return rounded(value, **attributes)
