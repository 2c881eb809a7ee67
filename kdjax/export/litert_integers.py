"""LiteRT files in which the runtime quantizes what goes into a product, in the call."""

import importlib
import os
from typing import Any

import numpy as np

from kdjax.quant import Plan
from kdjax.types import BadInput


def quantize_in_the_call(path: str | os.PathLike[str], plan: Plan) -> None:
    """Makes the layers of a file integer products whose rule is `dynamic`.

    LiteRT multiplies integers where a product reads int8 weights and an activation in float. It then
    has a scale for each row of a matrix and each image of a convolution, finer than that of
    `kdjax.quant.fake_dynamic`. The converter writes a DEQUANTIZE behind the weights, which keeps it
    from that: it is taken out. Layers are recognised by their integers.

    Args:
      path: of a file that `kdjax.export.write_litert` wrote; it is written anew.
      plan: of its model.

    Raises:
      BadInput: one of the layers is not in the file as one product.
    """
    wanted = {_fingerprint(layer.integers): layer.name for layer in plan.layers if layer.dynamic}
    if not wanted:
        return
    schema: Any = importlib.import_module("litert_converter.schema_py_generated")
    flatbuffers: Any = importlib.import_module("flatbuffers")
    with open(path, "rb") as file:
        model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(file.read(), 0))
    codes = [max(c.builtinCode, c.deprecatedBuiltinCode) for c in model.operatorCodes]
    missing = dict(wanted)
    for graph in model.subgraphs:
        integers = {
            operator.outputs[0]: operator.inputs[0]
            for operator in graph.operators
            if codes[operator.opcodeIndex] == schema.BuiltinOperator.DEQUANTIZE
        }
        for operator in graph.operators:
            stored = integers.get(operator.inputs[1]) if len(operator.inputs) > 1 else None
            if stored is None:
                continue
            values = model.buffers[graph.tensors[stored].buffer].data
            name = None if values is None else _fingerprint(np.asarray(values).view(np.int8))
            if name in wanted:
                operator.inputs = [operator.inputs[0], stored, *operator.inputs[2:]]
                missing.pop(name, None)
        read = {value for operator in graph.operators for value in operator.inputs}
        read |= set(graph.outputs)
        graph.operators = [
            operator
            for operator in graph.operators
            if operator.outputs[0] not in integers or operator.outputs[0] in read
        ]
    if missing:
        raise BadInput(
            "rules",
            f"{next(iter(missing.values()))} is no single product in the LiteRT file",
            "leave it in float, with a rule for it whose weights are None, before the others",
        )
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    with open(path, "wb") as file:
        file.write(builder.Output())


def _fingerprint(integers: np.ndarray) -> bytes:
    """Of the numbers of a layer, in whatever order its axes are."""
    return np.sort(integers.reshape(-1).astype(np.int8)).tobytes()
