"""An ONNX graph while it is rewritten: its operators, its stored arrays, the shapes of its values."""

from typing import Any

import numpy as np

ELEMENTWISE = frozenset(
    [
        "Abs",
        "Add",
        "Cast",
        "Ceil",
        "Clip",
        "Div",
        "Elu",
        "Erf",
        "Exp",
        "Floor",
        "Gelu",
        "HardSigmoid",
        "HardSwish",
        "Identity",
        "LeakyRelu",
        "Log",
        "Max",
        "Min",
        "Mul",
        "Neg",
        "Pow",
        "Reciprocal",
        "Relu",
        "Round",
        "Sigmoid",
        "Softplus",
        "Sqrt",
        "Sub",
        "Tanh",
        "Where",
    ]
)
"""Operators whose result has each of its entries from the same entries of their operands."""

_PRODUCTS = frozenset(["Conv", "ConvTranspose", "Gemm", "MatMul"])


class Graph:
    """A graph that operators are put into, and that keeps of them what its outputs need.

    Attributes:
      model: the ModelProto, which `order` writes the nodes back into.
      shapes: of the values where they are known; a size is a number, or text where it is open.
      arrays: what is stored, by name.
      nodes: the operators.
      outputs: names of what the graph gives.
      made: by the name of a value, the operator that makes it.
      uses: by the name of a value, how often it is read.
    """

    def __init__(self, model: Any):
        """Reads `model`, and infers the shapes of its values."""
        import onnx

        self.model = model
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
        self.shapes: dict[str, tuple[int | str, ...]] = {}
        for value in [*inferred.value_info, *inferred.input, *inferred.output]:
            if value.type.tensor_type.HasField("shape"):
                dims = value.type.tensor_type.shape.dim
                # A size that has neither a number nor a name is like no other.
                self.shapes[value.name] = tuple(
                    dim.dim_value
                    if dim.HasField("dim_value")
                    else dim.dim_param or f"?{value.name}{i}"
                    for i, dim in enumerate(dims)
                )
        graph = model.graph
        self.arrays = {t.name: onnx.numpy_helper.to_array(t) for t in graph.initializer}
        self.nodes: list[Any] = list(graph.node)
        self.outputs = [value.name for value in graph.output]
        self._places = {name: i for i, node in enumerate(self.nodes) for name in node.output}
        self.made: dict[str, Any] = {}
        self.uses: dict[str, int] = {}

    def index(self) -> None:
        """Finds what makes each value, and how often it is read."""
        self.made = {name: node for node in self.nodes for name in node.output}
        self.uses = dict.fromkeys(self.outputs, 1)
        for node in self.nodes:
            for name in node.input:
                self.uses[name] = self.uses.get(name, 0) + 1

    def put(self, kind: Any, inputs: list[str], result: str, **attributes: Any) -> str:
        """Makes a value: by an operator of a kind, or by one like another; gives its name.

        Args:
          kind: name of the kind, or an operator whose attributes are taken over.
          inputs: names of the operands.
          result: name of the value; a product that stands for another is named as that one's result,
            with `.first` or `.gate` behind it, and keeps its place in the order.
          **attributes: of a kind.
        """
        from onnx import helper

        if isinstance(kind, str):
            node = helper.make_node(kind, inputs, [result], **attributes)
        else:
            node = helper.make_node(kind.op_type, inputs, [result])
            node.attribute.extend(kind.attribute)
        self.made[result] = node
        return result

    def put_all(self, kind: str, inputs: list[str], results: list[str], **attributes: Any) -> None:
        """Makes several values by one operator of a kind, as `put` makes one."""
        from onnx import helper

        node = helper.make_node(kind, inputs, results, **attributes)
        self.made.update(dict.fromkeys(results, node))

    def keep(self, name: str, array: np.ndarray) -> str:
        """Stores an array, unless there is one of that name, and gives its name."""
        self.arrays.setdefault(name, array)
        return name

    def _products(self) -> list[str]:
        """Results of the products that an output needs, in the order in which they were written."""
        needed, pending = set(), [*self.outputs]
        while pending:
            name = pending.pop()
            if name not in needed and name in self.made:
                needed.update(self.made[name].output)
                pending += self.made[name].input

        def place(name: str) -> int:
            # A product that was written again is named after the one whose place it takes.
            return self._places[name.removesuffix(".gate").removesuffix(".first")]

        found = [name for name in needed if self.made[name].op_type in _PRODUCTS]
        return sorted(found, key=place)

    def order(self) -> None:
        """The nodes that an output needs, each after those that it reads, products in their old order.

        By that order the layers of a model are recognised in its file.
        """
        from onnx import numpy_helper

        ordered: list[Any] = []
        seen: set[str] = set()
        pending = [(name, False) for name in reversed([*self._products(), *self.outputs])]
        while pending:
            name, ready = pending.pop()
            node = self.made.get(name)
            if node is None or (name in seen and not ready):
                continue
            if ready:
                ordered.append(node)
                continue
            seen.update(node.output)
            pending.append((name, True))
            pending += [(given, False) for given in reversed(node.input) if given not in seen]
        self.nodes = ordered
        graph, read = self.model.graph, {name for node in ordered for name in node.input}
        stored = [t for t in graph.initializer if t.name in read]
        known = {t.name for t in stored}
        stored += [
            numpy_helper.from_array(self.arrays[name], name)
            for name in sorted(read - known)
            if name in self.arrays
        ]
        del graph.node[:], graph.initializer[:]
        graph.node.extend(ordered)
        graph.initializer.extend(stored)
        # The graph has copies.
        self.nodes = list(graph.node)


def attribute(node: Any, name: str, default: Any = 0) -> Any:
    """What an operator has for one of its attributes, `default` where that is left out."""
    from onnx import helper

    found = (helper.get_attribute_value(a) for a in node.attribute if a.name == name)
    return next(found, default)


def keeps_axes(node: Any) -> bool:
    """Whether a reduction leaves its axes with a size of 1."""
    return all(a.i for a in node.attribute if a.name == "keepdims")
