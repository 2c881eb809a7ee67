"""An ONNX graph whose convolutions have what is around them channels first, as they are themselves."""

from typing import Any

import numpy as np

from kdjax.export.onnx_graph import ELEMENTWISE, Graph, attribute, keeps_axes

_LAST = [0, 2, 3, 1]  # from channels first
_FIRST = [0, 3, 1, 2]  # from channels last
_REDUCTIONS = frozenset(["ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum"])


def channels_first(graph: Graph) -> None:
    """Moves axes only where something needs them otherwise."""
    values = _Values(graph)
    for node in graph.nodes:
        if _moves(node, _FIRST) and values.hoisted(node.input[0]):
            graph.put("Identity", [values.first(node.input[0])], node.output[0])
        elif _is_over_space(graph, node) and not keeps_axes(node) and values.free(node.input[0]):
            values.reduce(node, node.output[0])
    for value in sorted(values.computed):
        # What is wanted in both orders is computed in one.
        graph.put("Transpose", [values.moved[value]], value, perm=_LAST)
    graph.order()


class _Values:
    """The values of a graph, and what they are with their channels first.

    Attributes:
      moved: by the name of a value, that of it with its channels first.
      computed: of these values, those that are computed with their channels first.
    """

    def __init__(self, graph: Graph):
        self.graph = graph
        self.moved: dict[str, str] = {}
        self.computed: set[str] = set()

    def free(self, value: str) -> bool:
        """Whether nothing has to be moved for the value to have its channels first."""
        node = self.graph.made.get(value)
        if value in self.graph.arrays or not value:
            return True
        if node is None or len(self.graph.shapes.get(value, ())) != 4:
            return False
        if node.op_type in ELEMENTWISE:
            return all(map(self.free, node.input))
        if node.op_type in _REDUCTIONS:
            return (
                _is_over_space(self.graph, node) and keeps_axes(node) and self.free(node.input[0])
            )
        if _is_of_channels(node, "Concat"):
            return all(map(self.free, node.input))
        if _is_of_channels(node, "Split"):
            return self.free(node.input[0])
        if (shuffled := _shuffled(self.graph, node)) is not None:
            return self.free(shuffled[0])
        return _moves(node, _LAST) or _is_gate(self.graph, node)

    def hoisted(self, value: str) -> bool:
        """Whether at most one value has to be moved, and none that something else reads as it is."""
        apart, node = 0, self.graph.made.get(value)
        while not self.free(value) and node is not None and node.op_type in ELEMENTWISE:
            others = [name for name in node.input if not self.free(name)]
            if len(others) != 1 or self.graph.uses[value] > 1:
                return False
            (value,), apart = others, apart + 1
            node = self.graph.made.get(value)
        return self.free(value) or (apart > 0 and len(self.graph.shapes.get(value, ())) == 4)

    def first(self, value: str) -> str:
        """The value with its channels first."""
        if value not in self.moved:
            self.moved[value] = self._move(value)
        return self.moved[value]

    def _move(self, value: str) -> str:
        if not value:
            return value
        if value in self.graph.arrays:
            array = self.graph.arrays[value]
            if array.size == 1:
                return value
            array = array.reshape([1] * (4 - array.ndim) + [*array.shape])
            return self.graph.keep(f"{value}.first", np.ascontiguousarray(array.transpose(_FIRST)))
        node, result = self.graph.made.get(value), f"{value}.first"
        if node is not None and _moves(node, _LAST):
            return node.input[0]
        if node is not None and _is_gate(self.graph, node):
            return self.graph.put("Unsqueeze", [node.input[0], self._space()], result)
        if node is not None and node.op_type in ELEMENTWISE:
            self.computed.add(value)
            self.graph.put(node, [self.first(name) for name in node.input], result)
        elif node is not None and self.free(value):
            self.computed.add(value)
            self._put(node, value, result)
        else:
            return self.graph.put("Transpose", [value], result, perm=_FIRST)
        if len(shape := self.graph.shapes.get(value, ())) == 4:
            self.graph.shapes[result] = tuple(shape[axis] for axis in _FIRST)
        return result

    def _put(self, node: Any, value: str, result: str) -> None:
        """Makes a free value with its channels first, which is neither elementwise nor moved."""
        if node.op_type in _REDUCTIONS:
            self.reduce(node, result)
        elif node.op_type == "Concat":
            self.graph.put("Concat", [self.first(name) for name in node.input], result, axis=1)
        elif node.op_type == "Split":
            whole, *sizes = node.input
            results = [f"{name}.first" for name in node.output]
            self.graph.put_all("Split", [self.first(whole), *sizes], results, axis=1)
            self.moved.update(zip(node.output, results, strict=True))
            self.computed.update(node.output)
        else:
            self._shuffle(node, value, result)

    def _shuffle(self, node: Any, value: str, result: str) -> None:
        shuffled = _shuffled(self.graph, node)
        assert shuffled is not None
        whole, groups = shuffled
        height, width, channels = map(int, self.graph.shapes[value][1:])
        parts = [0, groups, channels // groups, height, width]

        def shape(name: str, sizes: list[int]) -> str:
            return self.graph.keep(f"{result}.{name}", np.asarray(sizes, np.int64))

        sizes = shape("parts", parts)
        apart = self.graph.put("Reshape", [self.first(whole), sizes], f"{result}.apart")
        across = self.graph.put("Transpose", [apart], f"{result}.across", perm=[0, 2, 1, 3, 4])
        self.graph.put("Reshape", [across, shape("whole", [0, channels, height, width])], result)

    def reduce(self, node: Any, result: str) -> str:
        """A reduction over space, written with its operand channels first."""
        return self.graph.put(node, [self.first(node.input[0]), self._space()], result)

    def _space(self) -> str:
        """The axes of space, channels first."""
        return self.graph.keep("space", np.asarray([2, 3], np.int64))


def _moves(node: Any, order: list[int]) -> bool:
    """Whether it transposes into this order and no other."""
    return node.op_type == "Transpose" and list(node.attribute[0].ints) == order


def _is_of_channels(node: Any, kind: str) -> bool:
    """Whether it is of this kind and along the channels, which are last."""
    return node.op_type == kind and attribute(node, "axis") in (3, -1)


def _shuffled(graph: Graph, node: Any) -> tuple[str, int] | None:
    """What a channel shuffle is of, and of how many groups; None of what is no shuffle."""
    across = graph.made.get(node.input[0]) if node.op_type == "Reshape" else None
    if across is None or across.op_type != "Transpose":
        return None
    apart = graph.made.get(across.input[0])
    if apart is None or apart.op_type != "Reshape":
        return None
    names = (apart.input[0], apart.output[0], node.output[0])
    before, parts, after = (graph.shapes.get(name, ()) for name in names)
    known = len(parts) == 5 and all(isinstance(size, int) for size in parts[1:])
    if not known or attribute(across, "perm") != [0, 1, 2, 4, 3]:
        return None
    if before != after or len(before) != 4 or before[:3] != parts[:3]:
        return None
    return apart.input[0], int(parts[3])


def _is_gate(graph: Graph, node: Any) -> bool:
    """Whether a number for each channel is given two axes for space."""
    if node.op_type != "Unsqueeze" or len(graph.shapes.get(node.input[0], ())) != 2:
        return False
    axes = graph.arrays.get(node.input[1])
    return axes is not None and sorted(axes) == [1, 2]


def _is_over_space(graph: Graph, node: Any) -> bool:
    """Whether it reduces an image, channels last, over space."""
    if node.op_type not in _REDUCTIONS or len(node.input) < 2:
        return False
    axes, shape = graph.arrays.get(node.input[1]), graph.shapes.get(node.input[0], ())
    return axes is not None and len(shape) == 4 and sorted(axes % 4) == [1, 2]
