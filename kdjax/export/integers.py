"""Whether a file has in integers what it was asked to: each layer of the rules, looked up in the file."""

import importlib
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from kdjax.quant import Plan, Stored
from kdjax.types import BadInput

_MOVES = ("Expand", "Flatten", "Identity", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze")
_PASSES = (*_MOVES, "GlobalMaxPool", "MaxPool", "ReduceMax")
_ENDS = ("Add", "Clip", "Max", "Min", "Relu")
_LITERT_PRODUCTS = ("BATCH_MATMUL", "CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")


def require_integers(faults: Sequence[str], format: str) -> None:
    """Refuses a file in which a layer runs in float that a rule has in integers.

    Raises:
      BadInput: there is such a layer; the line names the first and says how it is left in float.
    """
    if faults:
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        raise BadInput(
            "rules",
            f"{faults[0]} in the {format} file{more}",
            "leave it in float, with a rule for it whose weights are None, before the others",
        )


def onnx_faults(model: Any, plan: Plan) -> list[str]:
    """The layers of a plan that an ONNX model has otherwise, one line each.

    Args:
      model: an ONNX ModelProto that `write_quantized` made.
      plan: of it.
    """
    nodes = list(model.graph.node)
    stored = {tensor.name for tensor in model.graph.initializer}
    made = {name: node for node in nodes for name in node.output}
    readers: dict[str, list[Any]] = defaultdict(list)
    for node in nodes:
        for name in node.input:
            readers[name].append(node)

    def rounded_in(value: str) -> bool:
        node = made.get(value)
        while node is not None and node.op_type in _PASSES:
            node = made.get(node.input[0])
        return node is not None and node.op_type == "DequantizeLinear"

    def rounded_out(value: str) -> bool:
        while len(found := readers[value]) == 1 and found[0].op_type in (*_ENDS, *_MOVES):
            value = found[0].output[0]
        return bool(found) and all(node.op_type == "QuantizeLinear" for node in found)

    def fault(layer: Stored) -> str | None:
        if f"{layer.name}.integers" not in stored:
            return "has its weights in float"
        if layer.dynamic:
            products = _through(f"{layer.name}.integers", "Cast", readers)
            kinds = {node.op_type for node in products}
            integer = kinds and kinds <= {"ConvInteger", "DynamicQuantizeLSTM", "MatMulInteger"}
            return None if integer else "is multiplied in float"
        if layer.kind == "lookup":
            return None
        products = readers[f"{layer.name}.values"]
        for node in products:
            if layer.input is not None and not rounded_in(node.input[0]):
                return "runs in float: what goes in is not rounded"
            if layer.output is not None and not rounded_out(node.output[0]):
                return "runs in float: what comes out is not rounded"
        return None if products else "is read by nothing"

    found = ((layer.name, fault(layer)) for layer in plan.layers if layer.bits)
    return [f"{name} {why}" for name, why in found if why is not None]


def _through(value: str, kind: str, readers: dict[str, list[Any]]) -> list[Any]:
    """What reads a value, also behind one operator."""
    found = []
    for node in readers[value]:
        found += readers[node.output[0]] if node.op_type == kind else [node]
    return found


def litert_faults(content: bytes, plan: Plan) -> list[str]:
    """The layers of a plan that a LiteRT file has otherwise, one line each.

    Layers are recognised by their integers, in whatever order.

    Args:
      content: of the file.
      plan: of it.
    """
    schema: Any = importlib.import_module("litert_converter.schema_py_generated")
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    names = {v: k for k, v in vars(schema.BuiltinOperator).items() if isinstance(v, int)}
    codes = [names[max(c.builtinCode, c.deprecatedBuiltinCode)] for c in model.operatorCodes]
    int8 = schema.TensorType.INT8
    # Of each product with stored integers: what they are, whether it reads and gives integers.
    found: dict[bytes, list[tuple[bool, bool, bool]]] = defaultdict(list)
    for graph in model.subgraphs:
        source = {
            operator.outputs[0]: operator.inputs[0]
            for operator in graph.operators
            if codes[operator.opcodeIndex] == "DEQUANTIZE"
        }
        for operator in graph.operators:
            if codes[operator.opcodeIndex] not in _LITERT_PRODUCTS:
                continue
            at, weights, *_ = operator.inputs
            values = model.buffers[graph.tensors[source.get(weights, weights)].buffer].data
            if graph.tensors[source.get(weights, weights)].type != int8 or values is None:
                continue
            kinds = [graph.tensors[i].type == int8 for i in (weights, at, operator.outputs[0])]
            found[_sorted(np.asarray(values).view(np.int8))].append((kinds[0], kinds[1], kinds[2]))

    faults = []
    for layer in plan.layers:
        if not layer.bits:
            continue
        places = found.get(_sorted(layer.integers), [])
        if not places:
            faults.append(f"{layer.name} has its weights in float")
        elif layer.input is not None and not any(
            weights and given and (made or layer.output is None) for weights, given, made in places
        ):
            faults.append(f"{layer.name} runs in float")
    return faults


def _sorted(integers: np.ndarray) -> bytes:
    return np.sort(np.asarray(integers).reshape(-1).astype(np.int8)).tobytes()
