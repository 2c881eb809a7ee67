"""Where an ONNX file and its live model part: what goes into each layer, in both."""

import os
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float, Shaped

from kdjax.quant.layers import Layer, graph_of
from kdjax.quant.model import run
from kdjax.quant.numbers import fake_activation
from kdjax.quant.rules import Rule
from kdjax.types import Variables

_PRODUCTS = ("Conv", "Gemm", "MatMul", "ConvInteger", "MatMulInteger")


def differences(
    path: str | os.PathLike[str],
    function: Callable[..., Any],
    variables: Variables,
    images: Shaped[np.ndarray, "batch ..."],
    *,
    rules: Mapping[str, Rule],
    ranges: Mapping[str, Float[Any, "2"]],
) -> dict[str, float]:
    """How far apart what goes into each layer is, relative to the largest live value there.

    The file's products with constants are taken for the model's layers, in order. Of a file that has
    another number of them nothing is said: an empty dict.

    Args:
      path: of the ONNX file; its one input is images.
      function: `(variables, images) -> outputs`, the model in evaluation, in float.
      variables: of it, without ranges.
      images: raw.
      rules: of the layers that are quantized, none for a float file.
      ranges: by the name of the tensor.
    """
    live = _live(function, variables, images, rules, ranges)
    found = _in_file(path, images)
    if len(found) != len(live):
        return {}
    apart = {}
    for (name, expected), value in zip(live.items(), found, strict=True):
        if value.size != expected.size:
            return {}
        difference = np.abs(value.reshape(expected.shape) - expected).max()
        apart[name] = float(difference / max(np.abs(expected).max(), 1e-30))
    return apart


def _live(function, variables, images, rules, ranges) -> dict[str, np.ndarray]:
    """What goes into each layer, axes as ONNX has them."""
    graph = graph_of(function, variables, images)
    orders = {
        layer.name: graph.flat.steps[layer.step].equation.params["dimension_numbers"].lhs_spec
        for layer in graph.layers
        if layer.convolution
    }
    seen: dict[str, Array] = {}

    def see(layer: Layer, value: Array) -> None:
        order = orders.get(layer.name)
        seen[layer.name] = value if order is None else value.transpose(order)

    @jax.jit
    def forward(variables, images):
        run(
            function,
            variables,
            images,
            rules=rules,
            fake=lambda name, x: fake_activation(x, ranges[name]),
            see=see,
        )
        return [seen[layer.name] for layer in graph.layers]

    values = jax.device_get(forward(variables, images))
    return {layer.name: value for layer, value in zip(graph.layers, values, strict=True)}


def _in_file(path: str | os.PathLike[str], images: np.ndarray) -> list[np.ndarray]:
    """What goes into each product of a file with a constant."""
    import onnx
    import onnxruntime
    from onnx import helper

    model = onnx.load(path)
    graph = model.graph
    constants = {tensor.name for tensor in graph.initializer}
    constants |= {
        node.output[0]
        for node in graph.node
        if node.op_type in ("Cast", "DequantizeLinear") and node.input[0] in constants
    }
    # What is quantized in the call is looked at before it is.
    exact = {
        node.output[0]: node.input[0]
        for node in graph.node
        if node.op_type == "DynamicQuantizeLinear"
    }
    names = [
        exact.get(node.input[0], node.input[0])
        for node in graph.node
        if node.op_type in _PRODUCTS and node.input[1] in constants
    ]
    known = {value.name for value in graph.output}
    graph.output.extend(
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
        for name in dict.fromkeys(names)
        if name not in known
    )
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    feeds = {graph.input[0].name: images}
    return [np.asarray(value) for value in session.run(names, feeds)]
