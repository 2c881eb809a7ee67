"""Where a file and its live model part: what goes into each layer, in both."""

import importlib
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float, Shaped

from kdjax.quant.graph import Layer
from kdjax.quant.layers import graph_of
from kdjax.quant.model import run
from kdjax.quant.numbers import fake_activation
from kdjax.quant.rules import Rule
from kdjax.types import Variables

_PRODUCTS = ("Conv", "Gemm", "MatMul", "ConvInteger", "MatMulInteger")
_LITERT_PRODUCTS = ("BATCH_MATMUL", "CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")


def differences(
    path: str | os.PathLike[str],
    function: Callable[..., Any],
    variables: Variables,
    *inputs: Shaped[np.ndarray, "batch ..."],
    rules: Mapping[str, Rule],
    ranges: Mapping[str, Float[Any, "2"]],
) -> dict[str, float]:
    """How far apart what goes into each layer is, relative to the largest live value there.

    The file's products with constants are taken for the model's layers, in order. Of a file that has
    another number of them nothing is said: an empty dict. A converter may move a factor into the
    weights that come next, so one common factor makes no difference.

    Args:
      path: of the ONNX or LiteRT (.tflite) file.
      function: `(variables, *inputs) -> outputs`, the model in evaluation, in float.
      variables: of it, without ranges.
      *inputs: that the file takes, in its order.
      rules: of the layers that are quantized, none for a float file.
      ranges: by the name of the tensor.
    """
    litert = os.fspath(path).endswith(".tflite")
    # ONNX has the channels before space.
    live = _live(function, variables, inputs, rules, ranges, channels_first=not litert)
    found = _in_litert_file(path, inputs) if litert else _in_onnx_file(path, inputs)
    if len(found) != len(live):
        return {}
    apart = {}
    for (name, expected), value in zip(live.items(), found, strict=True):
        if value.size != expected.size:
            return {}
        value = value.reshape(expected.shape)
        factor = np.vdot(value, expected) / max(np.vdot(value, value), 1e-30)
        difference = min(np.abs(f * value - expected).max() for f in (1.0, factor))
        apart[name] = float(difference / max(np.abs(expected).max(), 1e-30))
    return apart


def _live(
    function, variables, inputs, rules, ranges, *, channels_first: bool
) -> dict[str, np.ndarray]:
    """What goes into each layer, axes as the file has them."""
    graph = graph_of(function, variables, *inputs)
    orders = {
        layer.name: graph.flat.steps[layer.step].equation.params["dimension_numbers"].lhs_spec
        for layer in graph.layers
        if layer.convolution and channels_first
    }
    seen: dict[str, Array] = {}

    def see(layer: Layer, value: Array) -> None:
        order = orders.get(layer.name)
        seen[layer.name] = value if order is None else value.transpose(order)

    @jax.jit
    def forward(variables, inputs):
        run(
            function,
            variables,
            *inputs,
            rules=rules,
            fake=lambda name, x: fake_activation(x, ranges[name]),
            see=see,
        )
        return [seen[layer.name] for layer in graph.layers]

    values = jax.device_get(forward(variables, inputs))
    return {layer.name: value for layer, value in zip(graph.layers, values, strict=True)}


def _in_onnx_file(path: str | os.PathLike[str], inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """What goes into each product with a constant."""
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
    feeds = dict(zip((given.name for given in graph.input), inputs, strict=True))
    return [np.asarray(value) for value in session.run(names, feeds)]


def _in_litert_file(path: str | os.PathLike[str], arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    """What goes into each product with a constant; the file is of one example."""
    runtime: Any = importlib.import_module("ai_edge_litert.interpreter")
    interpreter = runtime.Interpreter(
        os.fspath(path),
        experimental_preserve_all_tensors=True,
        experimental_op_resolver_type=runtime.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    interpreter.allocate_tensors()
    given = [value["index"] for value in interpreter.get_input_details()]
    operators, makers = [], {}
    for operator in interpreter._get_ops_details():
        kind, inputs = operator["op_name"], [int(index) for index in operator["inputs"]]
        operators.append((kind, inputs))
        makers |= {int(index): (kind, inputs) for index in operator["outputs"]}

    def is_constant(index: int) -> bool:
        if index not in makers:
            return index not in given
        kind, inputs = makers[index]
        return kind == "DEQUANTIZE" and is_constant(inputs[0])

    def unpadded(index: int) -> int:
        kind, inputs = makers.get(index, ("", []))
        return inputs[0] if kind.startswith("PAD") else index

    read = [
        unpadded(inputs[0])
        for kind, inputs in operators
        if kind in _LITERT_PRODUCTS and is_constant(inputs[1])
    ]
    details = {value["index"]: value for value in interpreter.get_tensor_details()}

    def exact(index: int) -> np.ndarray:
        value, (scale, zero) = interpreter.get_tensor(index), details[index]["quantization"]
        return (value.astype(np.float32) - zero) * scale if scale else value

    rows = []
    for i in range(len(arrays[0])):
        for index, array in zip(given, arrays, strict=True):
            interpreter.set_tensor(index, array[i : i + 1])
        interpreter.invoke()
        rows.append([exact(index) for index in read])
    return [np.stack(values) for values in zip(*rows, strict=True)]
