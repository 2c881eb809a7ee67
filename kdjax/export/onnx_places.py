"""Where the layers, sums and gates of a plan are in an ONNX file.

Products are recognised by their weights, which are the live ones entry for entry; sums and gates by the
tensors that go into them.
"""

from collections.abc import Callable, Collection
from typing import Any

import numpy as np

from kdjax.quant import Added, Plan, Stored, Times

# What may stand between a product and its end, as in `kdjax.quant.layers`, besides a bias.
_CLIPS = ("Clip", "Max", "Min", "Relu")
_MOVES = ("Expand", "Flatten", "Identity", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze")
CHOICES = (*_MOVES, "GlobalMaxPool", "MaxPool", "ReduceMax")
"""Operators that give entries of what goes in, and nothing else."""


PRODUCTS = ("convolution", "product")
"""Kinds of layers that are one operator, of a value and its weights."""


class Places:
    """An ONNX model, and which of its values is which tensor of the plan as far as it has been found.

    Attributes:
      model: the ONNX ModelProto.
      plan: what it is to have.
      nodes: its operators.
      arrays: its constants, by name.
      outputs: names of what it gives.
      made: the operator that makes a value.
      readers: the operators that read a value.
      tensors: the tensor that a value is.
      follow: whether a bias and a rectification may follow, by the `id` of a product or a sum.
    """

    def __init__(self, model: Any, plan: Plan):
        from onnx import numpy_helper

        self.model, self.plan = model, plan
        self.nodes: list[Any] = list(model.graph.node)
        self.arrays = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
        self.outputs = {value.name for value in model.graph.output}
        self.made = {name: node for node in self.nodes for name in node.output}
        self.readers: dict[str, list[Any]] = {}
        for node in self.nodes:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)
        self.tensors: dict[str, str] = {}
        self.follow: dict[int, tuple[bool, bool]] = {}

    def take(self, node: Any, pending: list[Stored]) -> Stored | None:
        """The first layer that is still to be found whose weights are this node's."""
        weights = self.arrays.get(node.input[1])
        if weights is None:
            return None
        if node.op_type == "Conv" and weights[0, 0].size == 1:
            # A matrix on an image of one pixel.
            matrix = weights.reshape(weights.shape[:2]).T
            if layer := taken(pending, matrix, PRODUCTS):
                return layer
        if node.op_type == "Gemm" and attribute(node, "transB"):
            weights = weights.T
        return taken(pending, weights, PRODUCTS)

    def gate(self, node: Any, gated: list[Times]) -> Times | None:
        """The gate that an operator makes, or multiplies with: of those still to be found, if it is."""
        of = self.tensors.get(self.origin(node.input[0]))
        slope, middle = attribute(node, "alpha", 0.2), attribute(node, "beta", 0.5)
        for times in (*gated, *self.plan.gated):
            if node.op_type == "HardSwish":
                found = times.value == of and (times.offset, times.size) == (3.0, 6.0)
            else:
                found = np.allclose([slope * times.size, middle * times.size], [1.0, times.offset])
            if found and times.of == of:
                return times
        return None

    def sum(self, node: Any, sums: list[Added]) -> bool:
        """Whether this is the next sum of its two tensors; then its result is noted."""
        if node.op_type != "Add":
            return False
        pair = [self.tensors.get(self.origin(name)) for name in node.input]
        for found in sums:
            if None not in pair and sorted(map(str, pair)) == sorted(found[:2]):
                sums.remove(found)
                self.follow[id(node)] = False, found.clipped
                for name, tensor in zip(node.input, pair, strict=True):
                    self.mark(name, tensor)
                self.mark(self.end(node), found.result)
                return True
        return False

    def times(self, node: Any) -> bool:
        """Whether this is a product with a gate; then its result is noted."""
        if node.op_type != "Mul":
            return False
        pair = [self.tensors.get(self.origin(name)) for name in node.input]
        for times in self.plan.gated:
            if None not in pair and sorted(map(str, pair)) == sorted((times.value, times.gate)):
                self.follow[id(node)] = False, False
                for name, tensor in zip(node.input, pair, strict=True):
                    self.mark(name, tensor)
                self.mark(self.end(node), times.result)
                return True
        return False

    def end(self, node: Any) -> str | None:
        """What comes out after bias and rectification; None where the file has the bias elsewhere."""
        found = self.after(node)
        return None if found is None else [node, *found][-1].output[0]

    def after(self, node: Any) -> list[Any] | None:
        """The bias, the rectification and what moves entries, between a node and its end.

        Only what the live model has there as well: an addition may be more than a bias, and a file
        may share a rectification that the live model has twice.
        """
        (value,) = node.output
        found = []
        bias, clipped = self.follow[id(node)]
        bias = bias and len(node.input) < 3
        while value not in self.outputs and len(self.readers.get(value, ())) == 1:
            (reader,) = self.readers[value]
            others = [name for name in reader.input if name != value]
            constant = all(name in self.arrays or not name for name in others)
            if reader.op_type == "Add" and bias and constant:
                bias = False
            elif reader.op_type not in (*_MOVES, *(_CLIPS if clipped else ())) or not constant:
                break
            (value,) = reader.output
            found.append(reader)
        while found and found[-1].op_type in _MOVES:
            found.pop()
        return None if bias else found

    def mark(self, value: str | None, tensor: str | None, *, back: bool = False) -> None:
        """Notes which tensor a value is; `back` also for those that it has its entries from."""
        while value is not None and tensor is not None:
            self.tensors.setdefault(value, tensor)
            node = self.made.get(value)
            if not back or node is None or node.op_type not in CHOICES:
                return
            value = node.input[0]

    def origin(self, value: str) -> str:
        """The nearest value before it that is a known tensor, moved about or chosen from."""
        at = value
        while at not in self.tensors:
            node = self.made.get(at)
            if node is None or node.op_type not in CHOICES:
                return value
            at = node.input[0]
        return at


def attribute(node: Any, name: str, default: Any = 0) -> Any:
    """An attribute of an operator, `default` where it has none."""
    from onnx import helper

    found = (helper.get_attribute_value(a) for a in node.attribute if a.name == name)
    return next(found, default)


def taken(
    pending: list[Stored],
    weights: np.ndarray,
    kinds: Collection[str],
    *,
    of: Callable[[Stored], np.ndarray] = lambda layer: layer.weights,
) -> Stored | None:
    """Takes out the first layer that is still to be found and has these weights, if there is one.

    Args:
      pending: layers that are still to be found.
      weights: a constant of a file.
      kinds: that it may be of, see `kdjax.quant.graph.Layer`.
      of: a layer's weights, as such a constant has them.
    """
    for layer in pending:
        if layer.kind in kinds and np.array_equal(of(layer), weights):
            pending.remove(layer)
            return layer
    return None
