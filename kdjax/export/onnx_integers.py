"""A float ONNX file made into one with integers, in the very numbers that the live model has.

The file's products are recognised by their weights, which are the live ones entry for entry. What goes
in and what comes out of them gets a QuantizeLinear and a DequantizeLinear with the live scale, which a
runtime makes an integer kernel of; and the weights and biases are stored as integers. Where the scale
is found in the call, the product itself is one of integers (DynamicQuantizeLinear, MatMulInteger).
"""

import itertools
import os
from typing import Any

import numpy as np

from kdjax.export import onnx_lookup, onnx_lstm, onnx_smooth
from kdjax.export.integers import onnx_faults, require_integers
from kdjax.export.onnx_places import CHOICES, Places, attribute
from kdjax.export.onnx_types import FLOAT, INT8, whole
from kdjax.quant import Plan, Stored, Times
from kdjax.types import BadInput

_MISSING = "int8 needs ONNX: pip install 'kdjax[export]'"
_PRODUCTS = ("Conv", "Gemm", "MatMul")
_GATES = ("HardSigmoid", "HardSwish")
_LARGEST_BIAS = 2.0**30  # half of what a sum of int32 holds


def write_quantized(
    source: str | os.PathLike[str], target: str | os.PathLike[str], plan: Plan
) -> dict[str, str]:
    """Writes `target`: the float file `source` with the integers of `plan`.

    Returns:
      `{tensor: name of the value in the file}` of those that are quantized, in the order of the file.

    Raises:
      BadInput: ONNX is not installed, or a layer of the plan is not in the file as one product, or
        would not run in integers there; nothing has been written then.
    """
    try:
        import onnx
    except ImportError:
        raise BadInput("", _MISSING) from None
    model = onnx.load(source)
    found = _File(model, plan).rewrite()
    onnx.checker.check_model(model)
    require_integers(onnx_faults(model, plan), "ONNX")
    onnx.save(model, target)
    return found


class _File(Places):
    """An ONNX file while it is rewritten."""

    def __init__(self, model: Any, plan: Plan):
        super().__init__(model, plan)
        # New nodes by the value they come right after, and the value that replaces it.
        self.rounded: dict[str, str] = {}
        self.pairs: list[tuple[str, list[Any]]] = []
        self.before: dict[int, list[Any]] = {}
        # Values that are quantized in the call.
        self.called: set[str] = set()
        # By value, what it is multiplied by before that.
        self.divided: dict[str, list[np.ndarray]] = {}
        self.dropped: set[int] = set()

    def rewrite(self) -> dict[str, str]:
        """Puts everything in; returns which value each tensor is."""
        pending = list(self.plan.layers)
        products: list[tuple[Any, Stored]] = []
        for node in self.nodes:
            if node.op_type == "LSTM":
                onnx_lstm.in_integers(self, node, pending)
            elif node.op_type == "Gather":
                onnx_lookup.in_integers(self, node, pending)
            elif node.op_type in _PRODUCTS and (layer := self.take(node, pending)) and layer.bits:
                products.append((node, layer))
        if missing := [layer.name for layer in pending if layer.bits]:
            raise BadInput(
                "rules",
                f"{missing[0]} is no single product in the ONNX file",
                "leave it in float, with a rule for it whose weights are None, before the others",
            )
        for node, layer in products:
            self.follow[id(node)] = layer.bias, layer.clipped
            self.mark(node.input[0], layer.input, back=True)
            self.mark(self.end(node), layer.output)
        added = self.joined()
        for node, layer in products:
            if layer.dynamic:
                self.multiply(node, layer)
            else:
                self.store(node, layer)
        for node in [*(node for node, _ in products), *added]:
            if (end := self.end(node)) in self.tensors:
                self.round(end, self.tensors[end], at=self.unclipped(node, self.tensors[end]))
        for node, layer in products:
            if layer.input is not None:
                self.reach(node.input[0])
        for name in (name for node in added for name in node.input if name in self.tensors):
            self.reach(name)
        self.link()
        return {tensor: value for value, tensor in self.tensors.items() if value in self.rounded}

    def joined(self) -> list[Any]:
        """The sums, gates and products with gates, in order; what each is has been noted then."""
        sums, gated, found = list(self.plan.sums), list(self.plan.gated), []
        made: set[Any] = set()
        nodes, self.nodes = self.nodes, []
        for node in nodes:
            if node.op_type in _GATES and (times := self.gate(node, gated)):
                if times in gated:
                    gated.remove(times)
                made |= {times.gate, times[:2] + times[4:]}
                gate = node
                if node.op_type == "HardSwish":
                    self.nodes.append(gate := self.halved(node))
                found.append(self.shift(gate, times))
            self.nodes.append(node)
            if self.sum(node, sums) or self.times(node):
                found.append(node)
        for times in gated:
            # One gate may be of several products, and a file may share what the live model has twice.
            if not made & {times.gate, times[:2] + times[4:]}:
                layer = times.of.removesuffix(":out")
                raise BadInput(
                    "rules",
                    f"the gate that is made of {layer} is no single operator in the ONNX file",
                    "leave that layer in float, with a rule for it whose weights are None, before "
                    "the others",
                )
        return found

    def halved(self, node: Any) -> Any:
        """Makes a hard swish a product with its gate; returns what makes the gate."""
        from onnx import helper

        (value,), (result,) = node.input, node.output
        gate = helper.make_node("HardSigmoid", [value], [f"{result}.gate"], alpha=1 / 6, beta=0.5)
        node.op_type = "Mul"
        node.input.append(gate.output[0])
        self.made[gate.output[0]] = gate
        self.readers[value].append(gate)
        self.readers[gate.output[0]] = [node]
        return gate

    def shift(self, node: Any, times: Times) -> Any:
        """Makes a gate a sum whose integers, counted in other units, are those of the gate.

        They end where it does; a clip is left only where they go further.
        """
        from onnx import helper

        (value,), (result,) = node.input, node.output
        self.mark(value, times.of)
        self.follow[id(node)] = False, False
        (scale, zero), name = self.plan.scales[times.gate], times.gate
        above = times.offset > 0
        shift = [
            self.keep(f"{name}.shift.integer", np.asarray(above, np.uint8)),
            self.keep(f"{name}.shift.scale", np.asarray(abs(times.offset) or 1.0, np.float32)),
            self.keep(f"{name}.shift.zero", np.asarray(times.offset < 0, np.uint8)),
        ]
        shifted = f"{result}.shift"
        made = helper.make_node("DequantizeLinear", shift, [shifted])
        self.before.setdefault(id(node), []).append(made)
        node.op_type = "Add"
        node.ClearField("attribute")
        node.input.append(shifted)
        after, at = [], result
        if zero > 0 or 255 * scale * (1 - 1e-6) > 1.0:
            bounds = [
                self.keep(f"{name}.least", np.asarray(0, np.float32)),
                self.keep(f"{name}.most", np.asarray(times.size, np.float32)),
            ]
            at = f"{result}.clipped"
            after.append(helper.make_node("Clip", [result, *bounds], [at]))
        zero = self.keep(f"{name}.zero", np.asarray(zero, np.uint8))
        larger = self.keep(f"{name}.larger", np.asarray(scale * times.size, np.float32))
        unit = self.keep(f"{name}.scale", np.asarray(scale, np.float32))
        integers, rounded = f"{result}.integers", f"{result}.rounded"
        after += [
            helper.make_node("QuantizeLinear", [at, larger, zero], [integers]),
            helper.make_node("DequantizeLinear", [integers, unit, zero], [rounded]),
        ]
        self.tensors[result], self.rounded[result] = times.gate, rounded
        self.pairs.append((result, after))
        return node

    def store(self, node: Any, layer: Stored) -> None:
        """Puts integers in the place of a node's weights and of its bias."""
        integers, scale = layer.integers, layer.scale
        convolution, axis = node.op_type == "Conv", int(integers.ndim == 2)
        bias = self.arrays.get(node.input[2]) if len(node.input) > 2 else None
        if layer.input is not None and bias is not None and bias.shape == scale.shape:
            unit = np.float32(self.plan.scales[self.tensors[node.input[0]]][0])
            # Weights far below the bias, as of a channel that a normalisation has shut: theirs are
            # rounded to multiples of what the bias can be counted in.
            wider = np.maximum(scale, np.abs(bias) / unit / _LARGEST_BIAS)
            spread = (scale / wider).reshape([-1, *[1] * (integers.ndim - 1)][:: 1 - 2 * axis])
            integers, scale = np.round(integers * spread), wider
            node.input[2] = self.integers(
                node, f"{layer.name}.bias", np.round(bias / (unit * scale)), unit * scale, bits=32
            )
        if convolution and axis:
            integers, axis = integers.T[..., None, None], 0
        elif node.op_type == "Gemm" and attribute(node, "transB"):
            integers, axis = integers.T, 0
        node.input[1] = self.integers(node, layer.name, integers, scale, bits=layer.bits, axis=axis)

    def multiply(self, node: Any, layer: Stored) -> None:
        """Makes a node a product of integers, what goes in quantized by what it is in the call."""
        from onnx import helper

        before = self.before.setdefault(id(node), [])

        def make(kind: str, inputs: list[str], *results: str, **attributes: Any) -> str:
            before.append(helper.make_node(kind, inputs, results, **attributes))
            return results[0]

        (value, *_), name = node.input, layer.name
        matrix = layer.integers.ndim == 2
        if flat := matrix and node.op_type == "Conv":  # on an image of one pixel
            value = make("Flatten", [value], f"{name}.flat", axis=1)
        if layer.smooth is not None:
            value = onnx_smooth.divided(self, before, value, layer.smooth)
        parts = [f"{value}.called", f"{value}.called.scale", f"{value}.called.zero"]
        if value not in self.called:
            self.called.add(value)
            make("DynamicQuantizeLinear", [value], *parts)
        weights = self.bytes(node, layer, layer.integers)
        convolution = not matrix
        # A scale and a bias for each channel, which is the first axis of an image.
        shape = [-1, *[1] * (layer.integers.ndim - 2)] if convolution else [-1]
        result = helper.make_node(
            "ConvInteger" if convolution else "MatMulInteger",
            [parts[0], weights, parts[2], self.keep(f"{name}.zero", np.asarray(0, np.int8))],
            [f"{name}.sum"],
        )
        if convolution:
            result.attribute.extend(node.attribute)
        before.append(result)
        total = make("Cast", [f"{name}.sum"], f"{name}.float", to=FLOAT)
        scale = self.keep(f"{name}.scale", layer.scale.astype(np.float32).reshape(shape))
        scale = make("Mul", [parts[1], scale], f"{name}.unit")
        node.op_type, bias = "Mul", node.input[2] if len(node.input) > 2 else None
        inputs = [total, scale]
        if bias is not None:
            self.follow[id(node)] = False, layer.clipped
            bias = self.keep(f"{name}.bias", self.arrays[bias].reshape(shape))
            node.op_type, inputs = "Add", [make("Mul", inputs, f"{name}.values"), bias]
        if flat:
            space = self.keep("space", np.asarray([2, 3], np.int64))
            inputs = [make(node.op_type, inputs, f"{name}.row"), space]
            node.op_type = "Unsqueeze"
        del node.input[:], node.attribute[:]
        node.input.extend(inputs)

    def integers(
        self, node: Any, name: str, values: Any, scale: np.ndarray, *, bits: int, axis: int = 0
    ) -> str:
        """Stores integers; returns the value that they stand for, made before `node`."""
        from onnx import helper

        values = whole(values, bits)
        inputs = [
            self.keep(f"{name}.integers", values),
            self.keep(f"{name}.scale", scale.astype(np.float32)),
            self.keep(f"{name}.zero", np.zeros(scale.shape, values.dtype)),
        ]
        result = f"{name}.values"
        made = helper.make_node("DequantizeLinear", inputs, [result], axis=axis)
        self.before.setdefault(id(node), []).append(made)
        return result

    def bytes(self, node: Any, layer: Stored, values: Any) -> str:
        """Stores the integers of a layer; returns the value that has them in bytes."""
        from onnx import helper

        stored = self.keep(f"{layer.name}.integers", whole(values, layer.bits))
        if layer.bits == 8:
            return stored
        result = f"{layer.name}.bytes"
        made = helper.make_node("Cast", [stored], [result], to=INT8)
        self.before.setdefault(id(node), []).append(made)
        return result

    def require(self, domain: str) -> None:
        """Notes that there is an operator of a domain, whose first version is enough."""
        known = [one.domain for one in self.model.opset_import]
        if domain not in known:
            self.model.opset_import.add(domain=domain, version=1)

    def keep(self, name: str, array: np.ndarray) -> str:
        from onnx import numpy_helper

        if name not in self.arrays:
            self.model.graph.initializer.append(numpy_helper.from_array(array, name))
            self.arrays[name] = array
        return name

    def unclipped(self, node: Any, tensor: str) -> str:
        """What to round instead of the end of a node: before what the integers cut off as well.

        A kernel ends in its integers, which go from the lowest to the highest number of the tensor; a
        rectification in between would keep the runtime from using it.
        """
        scale, zero = self.plan.scales[tensor]
        low, high = -zero * scale, (255 - zero) * scale * (1 - 1e-6)
        steps = [node, *(self.after(node) or ())]
        while len(steps) > 1 and self.cuts_nothing(steps[-1], low, high):
            self.dropped.add(id(steps.pop()))
        return steps[-1].output[0]

    def cuts_nothing(self, node: Any, low: float, high: float) -> bool:
        """Whether a rectification leaves everything between two numbers as it is."""
        bounds = [self.arrays[name] for name in node.input if name in self.arrays]
        match node.op_type:
            case "Relu":
                return low >= 0
            case "Max":
                return all(low >= bound.max() for bound in bounds)
            case "Min":
                return all(high <= bound.min() for bound in bounds)
            case "Clip":
                least, most = (self.arrays.get(name) for name in [*node.input[1:], "", ""][:2])
                return bool((least is None or low >= least) and (most is None or high <= most))
        return False

    def round(self, value: str, tensor: str, *, at: str | None = None) -> None:
        """Rounds a value, or what `at` is in its place, for all that read it."""
        from onnx import helper

        if value in self.rounded:
            return
        at = at or value
        scale, zero = self.plan.scales[tensor]
        numbers = [
            self.keep(f"{tensor}.scale", np.asarray(scale, np.float32)),
            self.keep(f"{tensor}.zero", np.asarray(zero, np.uint8)),
        ]
        integers, result = f"{value}.integers", f"{value}.rounded"
        self.rounded[value] = result
        self.pairs.append(
            (
                at,
                [
                    helper.make_node("QuantizeLinear", [at, *numbers], [integers]),
                    helper.make_node("DequantizeLinear", [integers, *numbers], [result]),
                ],
            )
        )

    def reach(self, value: str) -> None:
        """Rounds what goes in, and where it is from if something else reads that, too."""
        tensor = self.tensors[value]
        self.round(value, tensor)
        while (node := self.made.get(value)) and node.op_type in CHOICES:
            value = node.input[0]
            if value not in self.tensors:
                return
            # A kernel of a mean takes integers and gives some, before they are moved.
            mean = (made := self.made.get(value)) and made.op_type == "GlobalAveragePool"
            if len(self.readers[value]) > 1 or mean:
                self.round(value, tensor)

    def link(self) -> None:
        """Puts the new nodes in their places, and drops what nothing reads any more."""
        for node in [*self.nodes, *itertools.chain.from_iterable(self.before.values())]:
            for place, name in enumerate(node.input):
                node.input[place] = self.rounded.get(name, name)
        after: dict[str, list[Any]] = {}
        start: list[Any] = []
        for value, pair in self.pairs:
            (after.setdefault(value, []) if value in self.made else start).extend(pair)
        ordered = list(start)
        for node in self.nodes:
            if id(node) in self.dropped:
                continue
            ordered += self.before.get(id(node), [])
            ordered.append(node)
            for name in node.output:
                ordered += after.get(name, [])
        graph = self.model.graph
        del graph.node[:]
        graph.node.extend(ordered)
        read = {name for node in ordered for name in node.input}
        kept = [t for t in graph.initializer if t.name in read]
        for node in ordered:
            node.ClearField("name")  # which no runtime reads: a fiftieth of a small file
        del graph.initializer[:]
        graph.initializer.extend(kept)
