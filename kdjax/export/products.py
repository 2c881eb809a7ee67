"""An Einsum with stored weights as the one product that runtimes have kernels for, in integers too."""

import dataclasses
import math
from typing import Any

import numpy as np

from kdjax.export.onnx_graph import Graph, attribute


@dataclasses.dataclass(frozen=True)
class _Product:
    """`rows ... contracted` times `contracted ... columns`, each of one axis or more.

    Attributes:
      value: what goes in.
      weights: the stored operand, [contracted, columns].
      contracted: how many axes of the value are.
      columns: sizes of the axes that take their place.
    """

    value: str
    weights: np.ndarray
    contracted: int
    columns: tuple[int, ...]


def as_products(graph: Graph) -> None:
    """Each Einsum over the last axes of a value and the first of stored weights becomes a MatMul."""
    einsums = [node for node in graph.nodes if node.op_type == "Einsum"]
    for node in einsums:
        found = _product(graph, node)
        if found is None:
            continue
        (result,) = node.output
        weights = graph.keep(f"{result}.weights", np.ascontiguousarray(found.weights))
        rank = len(_terms(node)[0][0])
        value = found.value
        if found.contracted > 1:
            value = _reshaped(graph, value, f"{result}.flat", rank - found.contracted, (-1,))
        if len(found.columns) == 1:
            graph.put("MatMul", [value, weights], result)
        else:
            flat = graph.put("MatMul", [value, weights], f"{result}.first")
            _reshaped(graph, flat, result, rank - found.contracted, found.columns)
    if einsums:
        graph.order()


def _reshaped(graph: Graph, value: str, result: str, kept: int, sizes: tuple[int, ...]) -> str:
    """With its first axes, a 0 each, as they are."""
    shape = np.asarray((0,) * kept + sizes, np.int64)
    return graph.put("Reshape", [value, graph.keep(f"{result}.shape", shape)], result)


def _terms(node: Any) -> tuple[list[str], str]:
    equation = attribute(node, "equation")
    text = equation.decode() if isinstance(equation, bytes) else equation
    given, made = text.replace(" ", "").split("->")
    return given.split(","), made


def _product(graph: Graph, node: Any) -> _Product | None:
    """The product that an Einsum is, None where it is another."""
    given, made = _terms(node)
    if len(given) != 2:
        return None
    (value, weights), (of_value, of_weights) = node.input, given
    if weights not in graph.arrays or value in graph.arrays:
        return None
    contracted = [axis for axis in of_value if axis not in made]
    columns = [axis for axis in of_weights if axis not in contracted]
    rows = of_value[: len(of_value) - len(contracted)]
    plain = of_value.endswith("".join(contracted)) and made == rows + "".join(columns)
    if not (contracted and columns and rows and plain) or set(contracted) - set(of_weights):
        return None
    array = graph.arrays[weights]
    sizes = dict(zip(of_weights, array.shape, strict=True))
    order = [of_weights.index(axis) for axis in (*contracted, *columns)]
    matrix = array.transpose(order).reshape(math.prod(sizes[axis] for axis in contracted), -1)
    return _Product(value, matrix, len(contracted), tuple(sizes[axis] for axis in columns))
