"""What a file of a quantized model is to have: its layers in integers, its sums, its scales."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float

from kdjax.quant.graph import Kind, Layer
from kdjax.quant.layers import graph_of
from kdjax.quant.numbers import BITS, Weights, quantize_weights, scale_of
from kdjax.quant.rules import Rule, static
from kdjax.types import Variables


class Stored(NamedTuple):
    """A layer as a file has it.

    Attributes:
      name: of its parameter.
      weights: the live float ones; [out, in / groups, *window] of a convolution, else [in, out].
      bias, clipped: whether a bias and a rectification are between the product and its end.
      integers: of the same shape.
      scale: [out].
      bits: that an integer takes, 0 of a layer that stays as it is.
      input, output: names of the tensors that go in and come out, None where they stay float or
        are `dynamic`.
      dynamic: whether what goes in is quantized by what it is in the call.
      kind: of the layer. A parameter of a recurrence is [in, 4 out], in the order of its own gates; a
        table has its rows last, like the channels of any other matrix.
    """

    name: str
    weights: Float[np.ndarray, "..."]
    bias: bool
    clipped: bool
    integers: Float[np.ndarray, "..."]
    scale: Float[np.ndarray, " out"]
    bits: int
    input: str | None
    output: str | None
    dynamic: bool = False
    kind: Kind = "product"


class Added(NamedTuple):
    """A sum of two tensors and, if `clipped`, its rectification; `result` is None if that is float."""

    left: str
    right: str
    result: str | None
    clipped: bool


class Times(NamedTuple):
    """A tensor times a gate that is made of one, see `kdjax.quant.graph.Gated`; all are names."""

    value: str
    of: str
    gate: str
    result: str
    offset: float
    size: float


class Plan(NamedTuple):
    """What a file is to have: layers, sums and gated tensors, each in order, and scales by tensor."""

    layers: tuple[Stored, ...]
    sums: tuple[Added, ...]
    scales: Mapping[str, tuple[float, int]]
    gated: tuple[Times, ...] = ()


def plan_of(
    function: Callable[..., Any],
    variables: Variables,
    *inputs: Any,
    rules: Mapping[str, Rule],
    ranges: Mapping[str, Float[Any, "2"]],
) -> Plan:
    """What the file of `function(variables, *inputs)` is to have.

    Args:
      function: the model in evaluation, in float.
      variables: of it, without ranges.
      *inputs: arrays or shapes.
      rules: by the name of the layer's parameter.
      ranges: by the name of the tensor.
    """
    graph = graph_of(function, variables, *inputs)
    ranged = static(rules)
    tensors = graph.tensors(ranged)
    names = [layer.name for layer in graph.layers]
    layers = []
    parameters = graph.parameters(variables, *inputs, names=names)
    for (layer, live), own in zip(parameters, stored(parameters, rules), strict=True):
        rule = rules.get(layer.name)
        moved = _canonical(layer, graph.flat.steps[layer.step].equation)
        if rule is None or own is None:
            layers.append(_left(layer, moved(live)))
            continue
        shaped = np.broadcast_to(own.scale, live.shape)
        weights = moved(live)
        # A scale for each output: they are first of a convolution's axes, last of a matrix's.
        scale = moved(shaped)
        scale = scale.reshape(len(scale), -1)[:, 0] if layer.convolution else scale[0]
        active = layer.name in ranged
        layers.append(
            Stored(
                layer.name,
                weights,
                layer.bias,
                layer.clipped,
                moved(own.integers),
                scale,
                BITS[rule.weights],
                tensors.get(graph.source(layer.input)) if active else None,
                tensors.get(layer.output) if active else None,
                rule.activations == "dynamic",
                layer.kind,
            )
        )
    sums = []
    for added in graph.sums:
        left, right = (tensors.get(graph.source(v)) for v in (added.left, added.right))
        if left is not None and right is not None:
            sums.append(Added(left, right, tensors.get(added.output), added.clipped))
    gated = []
    for times in graph.gated:
        values = map(graph.source, (times.value, times.of, times.gate, times.output))
        if None not in (names := [tensors.get(value) for value in values]):
            value, of, gate, result = map(str, names)
            gated.append(Times(value, of, gate, result, times.offset, times.size))
    scales = {}
    for name in tensors.values():
        scale, zero = scale_of(np.asarray(ranges[name], np.float32))
        scales[name] = float(scale), int(zero)
    return Plan(tuple(layers), tuple(sums), scales, tuple(gated))


def stored(
    parameters: Sequence[tuple[Layer, Float[np.ndarray, "..."]]], rules: Mapping[str, Rule]
) -> list[Weights | None]:
    """What each parameter is stored as, on the host, None where its layer has no rule.

    One program for all: each shape by itself would be several.
    """

    def each(weights: Sequence[Array]) -> list[Weights | None]:
        return [
            quantize_weights(live, rules[layer.name], channels=layer.channels)
            if layer.name in rules
            else None
            for (layer, _), live in zip(parameters, weights, strict=True)
        ]

    return jax.device_get(jax.jit(each)([live for _, live in parameters]))


def _left(layer: Layer, weights: Float[np.ndarray, "..."]) -> Stored:
    """A layer that stays in float: known, so that no other with its weights is taken for it."""
    scale = np.ones(1, np.float32)
    return Stored(
        layer.name,
        weights,
        layer.bias,
        layer.clipped,
        weights,
        scale,
        0,
        input=None,
        output=None,
        kind=layer.kind,
    )


def _canonical(layer: Layer, equation: Any) -> Callable[[Any], np.ndarray]:
    """What brings the parameter of a layer into the order of ONNX."""
    if layer.kind == "recurrence":
        return lambda w: np.reshape(w, (len(w), -1))
    if layer.kind == "lookup":
        return np.transpose
    numbers = equation.params["dimension_numbers"]
    if layer.convolution:
        return lambda w: np.transpose(w, numbers.rhs_spec)
    contracted = numbers[0][layer.place]
    outer = [axis for axis in layer.channels if axis not in contracted]

    def matrix(w):
        w = np.transpose(w, (*contracted, *outer))
        return w.reshape(int(np.prod(w.shape[: len(contracted)])), -1)

    return matrix
