"""What a file of a quantized model is to have: its layers in integers, its sums, its scales."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float

from kdjax.quant.fake_quant import BITS, Weights, quantize_weights, scale_of
from kdjax.quant.graph import Graph, Kind, Layer
from kdjax.quant.layers import graph_of
from kdjax.quant.model import SMOOTH, along
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
      smooth: what its inputs are divided by, [in], None for nothing; the integers are then those of the
        weights times it.
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
    smooth: Float[np.ndarray, " in"] | None = None


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
    ranges: Mapping[str, Float[Any, "..."]],
) -> Plan:
    """What the file of `function(variables, *inputs)` is to have.

    Args:
      function: the model in evaluation, in float.
      variables: of it, without ranges.
      *inputs: arrays or shapes.
      rules: by the name of the layer's parameter.
      ranges: by the name of the tensor, and divisors by the name of the layer.
    """
    graph = graph_of(function, variables, *inputs)
    tensors = graph.tensors(static(rules))
    parameters = graph.parameters(variables, *inputs, names=[layer.name for layer in graph.layers])
    smooth = {
        layer.name: (np.asarray(found), graph.contracted(layer)[1])
        for layer in graph.layers
        if (found := ranges.get(f"{layer.name}{SMOOTH}")) is not None and layer.name in rules
    }
    owns = stored(parameters, rules, smooth)
    layers = [
        _in_file(graph, layer, live, own, rules, tensors, smooth)
        for (layer, live), own in zip(parameters, owns, strict=True)
    ]
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


def _in_file(
    graph: Graph,
    layer: Layer,
    live: Float[np.ndarray, "..."],
    own: Weights | None,
    rules: Mapping[str, Rule],
    tensors: Mapping[int, str],
    smooth: Mapping[str, tuple[np.ndarray, tuple[int, ...]]],
) -> Stored:
    """A layer as a file has it, from what its parameter is and is stored as."""
    rule = rules.get(layer.name)
    moved = _canonical(layer, graph.flat.steps[layer.step].equation)
    if rule is None or own is None:
        return _left(layer, moved(live))
    # A scale for each output: they are first of a convolution's axes, last of a matrix's.
    scale = moved(np.broadcast_to(own.scale, live.shape))
    scale = scale.reshape(len(scale), -1)[:, 0] if layer.convolution else scale[0]
    active = rule.activations == "int8"
    divisors, _ = smooth.get(layer.name, (None, ()))
    return Stored(
        layer.name,
        moved(live),
        layer.bias,
        layer.clipped,
        moved(own.integers),
        scale,
        BITS[rule.weights],
        tensors.get(graph.source(layer.input)) if active else None,
        tensors.get(layer.output) if active else None,
        rule.activations == "dynamic",
        layer.kind,
        None if divisors is None else divisors.reshape(-1),
    )


def stored(
    parameters: Sequence[tuple[Layer, Float[np.ndarray, "..."]]],
    rules: Mapping[str, Rule],
    smooth: Mapping[str, tuple[np.ndarray, tuple[int, ...]]] | None = None,
) -> list[Weights | None]:
    """What each parameter is stored as, on the host, None where its layer has no rule.

    One program for all: each shape by itself would be several.

    Args:
      parameters: of the layers.
      rules: by their names.
      smooth: what they are times before, and along which of their axes.
    """

    def larger(layer: Layer, live: Array) -> Array:
        found = (smooth or {}).get(layer.name)
        return live if found is None else live * along(*found, live.ndim)

    def each(weights: Sequence[Array]) -> list[Weights | None]:
        return [
            quantize_weights(larger(layer, live), rules[layer.name], channels=layer.channels)
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
