"""An ONNX model in fewer operators: channels first from end to end, no shape computed in the call.

jax2onnx writes a convolution for a runtime and what is around it as JAX has it, channels last; it moves
the axes before and after, and finds the size of an open batch anew wherever a shape has it. All of it
takes time that a small network notices. What is written here computes the same, entry for entry, but for
the order in which a mean is summed up.
"""

from typing import Any

import numpy as np

_LAST = [0, 2, 3, 1]  # from channels first
_FIRST = [0, 3, 1, 2]  # from channels last
_ELEMENTWISE = frozenset(
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
_PRODUCTS = frozenset(["Conv", "ConvTranspose", "Gemm", "MatMul"])
_REDUCTIONS = frozenset(["ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum"])


def simplify(model: Any) -> None:
    """Rewrites an ONNX ModelProto in place; its inputs and outputs stay what they are.

    A model with graphs inside of its operators, as of loops, is left as it is: they may read anything.
    """
    if not any(a.HasField("g") or a.graphs for node in model.graph.node for a in node.attribute):
        _Graph(model).rewrite()


class _Graph:
    """A graph while it is rewritten."""

    def __init__(self, model: Any):
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
        self.places = {name: i for i, node in enumerate(self.nodes) for name in node.output}
        self.made: dict[str, Any] = {}
        self.uses: dict[str, int] = {}
        # What a value is with its channels first; of these, those that are computed so.
        self.moved: dict[str, str] = {}
        self.computed: set[str] = set()

    def rewrite(self) -> None:
        for change in (self.plain, self.channels_first, self.pooled, self.gated):
            self.index()
            change()
        self.index()
        self.order()

    def index(self) -> None:
        """Finds what makes each value, and how often it is read."""
        self.made = {name: node for node in self.nodes for name in node.output}
        self.uses = dict.fromkeys(self.outputs, 1)
        for node in self.nodes:
            for name in node.input:
                self.uses[name] = self.uses.get(name, 0) + 1

    def plain(self) -> None:
        """What changes nothing is left out; what has a plain operator of its own gets that."""
        same: dict[str, str] = {}
        for node in self.nodes:
            for place, name in enumerate(node.input):
                node.input[place] = same.get(name, name)
            (result, *_), before = node.output, self.shapes.get((*node.input, "")[0])
            if result in self.outputs:
                continue
            match node.op_type:
                case "Max" if len(node.input) == 2 and (x := self.beside(node, 0.0)) is not None:
                    node.op_type = "Relu"
                    node.ClearField("input")
                    node.input.append(x)
                case "Mul" if (x := self.beside(node, 1.0)) is not None:
                    same[result] = x
                case "Identity":
                    same[result] = node.input[0]
                case "Transpose" if (array := self.arrays.get(node.input[0])) is not None:
                    # Such as of a convolution's weights, which are looked for as the operator takes them.
                    moved = np.ascontiguousarray(array.transpose(list(node.attribute[0].ints)))
                    same[result] = self.keep(f"{result}.moved", moved)
                case "Expand" if before is not None and before == self.shapes.get(result):
                    same[result] = node.input[0]
                case "Reshape" if (axes := self.inserted(node)) is not None:
                    node.op_type = "Unsqueeze"
                    node.ClearField("attribute")
                    node.input[1] = self.keep(f"{result}.axes", np.asarray(axes, np.int64))

    def beside(self, node: Any, number: float) -> str | None:
        """The other operand, where one is this number and makes the result no larger."""
        for x, other in (node.input, reversed(node.input)):
            found, rank = self.arrays.get(other), len(self.shapes.get(x, ()))
            if found is None or x in self.arrays or found.size != 1 or found.ndim > rank:
                continue
            if np.issubdtype(found.dtype, np.floating) and found == number:
                return x
        return None

    def inserted(self, node: Any) -> list[int] | None:
        """The axes of size 1 that a shape has more than what it is made of, if that is all."""
        before, after = (self.shapes.get(name) for name in (node.input[0], node.output[0]))
        if not before or not after or len(after) <= len(before) or node.input[1] in self.arrays:
            return None
        axes, left = [], [*before]
        # From the last, so that a gate of one channel has its axis there, too.
        for axis, size in reversed([*enumerate(after)]):
            if left and size == left[-1]:
                left.pop()
            elif size == 1:
                axes.insert(0, axis)
            else:
                return None
        return None if left else axes

    def channels_first(self) -> None:
        """Moves axes only where something needs them otherwise."""
        for node in self.nodes:
            if self.moves(node, _FIRST) and self.hoisted(node.input[0]):
                first = self.first(node.input[0])
                self.put("Identity", [first], node.output[0])
            elif self.spatial(node) and not self.kept(node) and self.free(node.input[0]):
                self.reduce(node, node.output[0])
        for value in sorted(self.computed):
            # What is wanted in both orders is computed in one.
            self.put("Transpose", [self.moved[value]], value, perm=_LAST)
        self.order()
        self.index()
        self.plain()

    def free(self, value: str) -> bool:
        """Whether nothing has to be moved for the value to have its channels first."""
        node = self.made.get(value)
        if value in self.arrays or not value:
            return True
        if node is None or len(self.shapes.get(value, ())) != 4:
            return False
        if node.op_type in _ELEMENTWISE:
            return all(map(self.free, node.input))
        if node.op_type in _REDUCTIONS:
            return self.spatial(node) and self.kept(node) and self.free(node.input[0])
        return self.moves(node, _LAST) or self.is_gate(node)

    def hoisted(self, value: str) -> bool:
        """Whether at most one value has to be moved, and none that something else reads as it is."""
        apart, node = 0, self.made.get(value)
        while not self.free(value) and node is not None and node.op_type in _ELEMENTWISE:
            others = [name for name in node.input if not self.free(name)]
            if len(others) != 1 or self.uses[value] > 1:
                return False
            (value,), apart = others, apart + 1
            node = self.made.get(value)
        return self.free(value) or (apart > 0 and len(self.shapes.get(value, ())) == 4)

    def first(self, value: str) -> str:
        """The value with its channels first."""
        if value not in self.moved:
            self.moved[value] = self.move(value)
        return self.moved[value]

    def move(self, value: str) -> str:
        if not value:
            return value
        if value in self.arrays:
            array = self.arrays[value]
            if array.size == 1:
                return value
            array = array.reshape([1] * (4 - array.ndim) + [*array.shape])
            return self.keep(f"{value}.first", np.ascontiguousarray(array.transpose(_FIRST)))
        node, result = self.made.get(value), f"{value}.first"
        if node is not None and self.moves(node, _LAST):
            return node.input[0]
        if node is not None and self.is_gate(node):
            return self.put("Unsqueeze", [node.input[0], self.space()], result)
        if node is not None and node.op_type in _ELEMENTWISE:
            self.computed.add(value)
            return self.put(node, [self.first(name) for name in node.input], result)
        if node is not None and node.op_type in _REDUCTIONS and self.free(value):
            self.computed.add(value)
            return self.reduce(node, result)
        return self.put("Transpose", [value], result, perm=_FIRST)

    def reduce(self, node: Any, result: str) -> str:
        return self.put(node, [self.first(node.input[0]), self.space()], result)

    def space(self) -> str:
        """The axes of space, channels first."""
        return self.keep("space", np.asarray([2, 3], np.int64))

    def moves(self, node: Any, order: list[int]) -> bool:
        return node.op_type == "Transpose" and list(node.attribute[0].ints) == order

    def is_gate(self, node: Any) -> bool:
        """Whether a number for each channel is given two axes for space."""
        if node.op_type != "Unsqueeze" or len(self.shapes.get(node.input[0], ())) != 2:
            return False
        axes = self.arrays.get(node.input[1])
        return axes is not None and sorted(axes) == [1, 2]

    def spatial(self, node: Any) -> bool:
        """Whether it reduces an image, channels last, over space."""
        if node.op_type not in _REDUCTIONS or len(node.input) < 2:
            return False
        axes, shape = self.arrays.get(node.input[1]), self.shapes.get(node.input[0], ())
        return axes is not None and len(shape) == 4 and sorted(axes % 4) == [1, 2]

    def kept(self, node: Any) -> bool:
        return all(a.i for a in node.attribute if a.name == "keepdims")

    def pooled(self) -> None:
        """A sum over space by the number of its entries is a mean, for which runtimes have a kernel."""
        for node in self.nodes:
            total = self.made.get(node.input[0]) if node.op_type == "Div" else None
            if total is None or total.op_type != "ReduceSum" or self.uses[node.input[0]] > 1:
                continue
            axes, size = self.arrays.get(total.input[1]), self.arrays.get(node.input[1])
            shape = self.shapes.get(total.input[0], ())
            if axes is None or size is None or len(shape) != 4 or sorted(axes % 4) != [2, 3]:
                continue
            area = np.prod([side if isinstance(side, int) else 0 for side in shape[2:]])
            if not np.issubdtype(size.dtype, np.floating) or size.size != 1 or size != area:
                continue
            (result,) = node.output
            if self.kept(total):
                self.put("GlobalAveragePool", [total.input[0]], result)
            else:
                pooled = self.put("GlobalAveragePool", [total.input[0]], f"{result}.pooled")
                self.put("Flatten", [pooled], result, axis=1)
        self.order()

    def gated(self) -> None:
        """Products between a mean over space and a gate for all of it keep the axes of space.

        As convolutions they are in the order of those around them.
        """
        self.index()
        for node in self.nodes:
            axes = self.arrays.get(node.input[1]) if node.op_type == "Unsqueeze" else None
            if axes is None or not np.array_equal(axes, [2, 3]):
                continue
            chain, value = [], node.input[0]
            while (at := self.made.get(value)) is not None and self.uses[value] == 1:
                chain.append(at)
                if at.op_type == "Flatten" or not self.in_gate(at):
                    break
                (value,) = (name for name in at.input if name not in self.arrays)
            if not chain or chain[-1].op_type != "Flatten":
                continue
            pooled = self.made.get(chain[-1].input[0])
            if pooled is None or pooled.op_type != "GlobalAveragePool":
                continue
            value = chain[-1].input[0]
            for at in reversed(chain[:-1]):
                result = f"{at.output[0]}.gate"
                if at.op_type == "Gemm":
                    _, weights, bias = at.input
                    matrix = self.arrays[weights]
                    matrix = matrix if _attribute(at, "transB") else matrix.T
                    name = self.keep(
                        f"{weights}.conv", np.ascontiguousarray(matrix[..., None, None])
                    )
                    value = self.put("Conv", [value, name, bias], result)
                else:
                    given = [value if name not in self.arrays else name for name in at.input]
                    value = self.put(at, given, result)
            self.put("Identity", [value], node.output[0])
        self.order()
        self.index()
        self.plain()

    def in_gate(self, node: Any) -> bool:
        """Whether it is as good with two axes more: a product with a bias, or of one operand."""
        if node.op_type == "Gemm":
            plain = all(_attribute(node, name, 1.0) == 1.0 for name in ("alpha", "beta"))
            plain = plain and not _attribute(node, "transA")
            stored = len(node.input) == 3 and all(name in self.arrays for name in node.input[1:])
            return plain and stored and self.arrays[node.input[2]].ndim == 1
        others = [name for name in node.input if name not in self.arrays]
        scalars = all(self.arrays[name].ndim == 0 for name in node.input if name in self.arrays)
        return node.op_type in _ELEMENTWISE and len(others) == 1 and scalars

    def put(self, kind: Any, inputs: list[str], result: str, **attributes: Any) -> str:
        """Makes a value: by an operator of a kind, or by one like another."""
        from onnx import helper

        if isinstance(kind, str):
            node = helper.make_node(kind, inputs, [result], **attributes)
        else:
            node = helper.make_node(kind.op_type, inputs, [result])
            node.attribute.extend(kind.attribute)
            shape = self.shapes.get(kind.output[0], ())
            if len(shape) == 4 and result == f"{kind.output[0]}.first":
                self.shapes[result] = tuple(shape[axis] for axis in _FIRST)
        self.made[result] = node
        return result

    def keep(self, name: str, array: np.ndarray) -> str:
        self.arrays.setdefault(name, array)
        return name

    def products(self) -> list[str]:
        """Results of the products that an output needs, in the order in which they were written."""
        needed, pending = set(), [*self.outputs]
        while pending:
            name = pending.pop()
            if name not in needed and name in self.made:
                needed.update(self.made[name].output)
                pending += self.made[name].input

        def place(name: str) -> int:
            return self.places[name.removesuffix(".gate").removesuffix(".first")]

        found = [name for name in needed if self.made[name].op_type in _PRODUCTS]
        return sorted(found, key=place)

    def order(self) -> None:
        """The nodes that an output needs, each after those that it reads, products in their old order.

        By that order the layers of a model are recognised in its file.
        """
        from onnx import numpy_helper

        ordered: list[Any] = []
        seen: set[str] = set()
        pending = [(name, False) for name in reversed([*self.products(), *self.outputs])]
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


def _attribute(node: Any, name: str, default: Any = 0) -> Any:
    from onnx import helper

    found = (helper.get_attribute_value(a) for a in node.attribute if a.name == name)
    return next(found, default)
