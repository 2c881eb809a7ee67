"""Rows of a table, such as embeddings of tokens, looked up among integers."""

from typing import Any

import numpy as np

from kdjax.export.onnx_places import attribute, taken
from kdjax.export.onnx_types import FLOAT, MICROSOFT, whole
from kdjax.quant import Stored

_LEAST_BLOCK = 16


def in_integers(file: Any, node: Any, pending: list[Stored]) -> None:
    """Makes a choice of rows one of integers, each row then times the scale of its own.

    Rows of less than eight bits are taken by an operator of ONNX Runtime alone.

    Args:
      file: that is rewritten, see `kdjax.export.onnx_integers`.
      node: a Gather.
      pending: layers that are still to be found; that of this one is taken out.
    """
    from onnx import helper

    table = file.arrays.get(node.input[0])
    if table is None or attribute(node, "axis"):
        return
    layer = taken(pending, table, ("lookup",), of=lambda layer: layer.weights.T)
    if layer is None or not layer.bits:
        return
    (_, rows), name = node.input, layer.name
    stored = file.keep(f"{name}.integers", whole(layer.integers.T, layer.bits))
    scale = file.keep(f"{name}.scale", layer.scale.astype(np.float32)[:, None])
    node.ClearField("attribute")
    if layer.bits < 8:
        node.op_type, node.domain = "GatherBlockQuantized", MICROSOFT
        # A block is no shorter than a row: each has one scale.
        block = max(_LEAST_BLOCK, 1 << (table.shape[1] - 1).bit_length())
        given = {"gather_axis": 0, "quantize_axis": 1, "block_size": block}
        node.attribute.extend(helper.make_attribute(key, value) for key, value in given.items())
        node.input[:] = [stored, rows, scale]
        file.require(MICROSOFT)
        return
    chosen, whole_rows, unit = f"{name}.rows", f"{name}.float", f"{name}.unit"
    file.before.setdefault(id(node), []).extend(
        [
            helper.make_node("Gather", [stored, rows], [chosen]),
            helper.make_node("Cast", [chosen], [whole_rows], to=FLOAT),
            helper.make_node("Gather", [scale, rows], [unit]),
        ]
    )
    node.op_type = "Mul"
    node.input[:] = [whole_rows, unit]
