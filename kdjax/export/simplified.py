"""An ONNX model in fewer operators: channels first from end to end, no shape computed in the call.

jax2onnx writes a convolution for a runtime and what is around it as JAX has it, channels last; it moves
the axes before and after, and finds the size of an open batch anew wherever a shape has it. All of it
takes time that a small network notices. What is written here computes the same, entry for entry, but for
the order in which a mean is summed up.
"""

from typing import Any

import numpy as np

from kdjax.export.channels_first import channels_first
from kdjax.export.onnx_graph import ELEMENTWISE, Graph, attribute, keeps_axes
from kdjax.export.onnx_spectra import as_formulas
from kdjax.export.products import as_products


def simplify(model: Any) -> None:
    """Rewrites an ONNX ModelProto in place; its inputs and outputs stay what they are.

    A model with graphs inside of its operators, as of loops, is left as it is: they may read anything.
    """
    if any(a.HasField("g") or a.graphs for node in model.graph.node for a in node.attribute):
        return
    graph = Graph(model)
    for change in (
        _divided,
        _plain,
        _padded,
        as_products,
        channels_first,
        _plain,
        _pooled,
        _gated,
        _plain,
        as_formulas,
    ):
        graph.index()
        change(graph)
    graph.index()
    graph.order()


def _plain(graph: Graph) -> None:
    """What changes nothing is left out; what has a plain operator of its own gets that."""
    same: dict[str, str] = {}
    shaped: dict[tuple[str, bytes, bytes], str] = {}
    for node in graph.nodes:
        for place, name in enumerate(node.input):
            node.input[place] = same.get(name, name)
        (result, *_), before = node.output, graph.shapes.get((*node.input, "")[0])
        if result in graph.outputs:
            continue
        if (array := _known(graph, node)) is not None:
            same[result] = graph.keep(f"{result}.known", array)
            continue
        if node.op_type == "Reshape" and (shape := graph.arrays.get(node.input[1])) is not None:
            # Such as before each of several products that read one value: it is rounded once for all.
            attributes = b"".join(a.SerializeToString() for a in node.attribute)
            first = shaped.setdefault((node.input[0], shape.tobytes(), attributes), result)
            if first != result:
                same[result] = first
                continue
        match node.op_type:
            case "Max" if len(node.input) == 2 and (x := _beside(graph, node, 0.0)) is not None:
                node.op_type = "Relu"
                node.ClearField("input")
                node.input.append(x)
            case "Mul" if (x := _beside(graph, node, 1.0)) is not None:
                same[result] = x
            case "Identity":
                same[result] = node.input[0]
            case "Transpose" if (array := graph.arrays.get(node.input[0])) is not None:
                # Such as of a convolution's weights, which are looked for as the operator takes them.
                moved = np.ascontiguousarray(array.transpose(list(node.attribute[0].ints)))
                same[result] = graph.keep(f"{result}.moved", moved)
            case "Expand" if before is not None and before == graph.shapes.get(result):
                same[result] = node.input[0]
            case "Reshape" if (axes := _inserted(graph, node)) is not None:
                node.op_type = "Unsqueeze"
                node.ClearField("attribute")
                node.input[1] = graph.keep(f"{result}.axes", np.asarray(axes, np.int64))


def _known(graph: Graph, node: Any) -> np.ndarray | None:
    """A size of something stored, and what is made of such sizes: a number that no call decides.

    What is looked up in a table checks its rows against their number so, which would keep the table.
    """
    if not node.input or any(name not in graph.arrays for name in node.input):
        return None
    first, *rest = (graph.arrays[name] for name in node.input)
    match node.op_type:
        case "Shape" if not node.attribute:
            return np.asarray(first.shape, np.int64)
        case "Gather" if first.ndim == 1:
            return np.asarray(first[rest[0]])
        case "Squeeze" if len(rest) == 1:
            return np.squeeze(first, tuple(rest[0].tolist()))
        case "Sub":
            return np.asarray(first - rest[0])
    return None


def _divided(graph: Graph) -> None:
    """A mean of several values is a sum and a division, as JAX has it.

    jax2onnx makes a mean of any sum that is divided by the number of what is summed up: of integers,
    which ONNX has none of, and of a layer's product and its bias, where an attention divides by 2.
    """
    means = [node for node in graph.nodes if node.op_type == "Mean"]
    for node in means:
        kind = _integers(graph, node) or np.dtype(np.float32)
        (result,), (total, *others) = node.output, node.input
        for i, other in enumerate(others):
            total = graph.put("Add", [total, other], f"{result}.sum{i}")
        count = graph.keep(f"{result}.count", np.asarray(len(node.input), kind))
        graph.put("Div", [total, count], result)
    if means:
        graph.order()


def _padded(graph: Graph) -> None:
    """A padding with what no maximum chooses is one of the pooling behind it."""
    from onnx import helper

    found = False
    for node in graph.nodes:
        moved = graph.made.get(node.input[0]) if node.op_type == "MaxPool" else None
        if moved is None or moved.op_type != "Transpose" or attribute(node, "pads", None):
            continue
        pad, kernel = graph.made.get(moved.input[0]), attribute(node, "kernel_shape")
        pairs = None if pad is None else _nothing_around(graph, pad)
        if (
            pad is None
            or pairs is None
            or attribute(node, "auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID")
        ):
            continue
        order = attribute(moved, "perm")
        batch, channels, *space = (pairs[axis] for axis in order)
        # No runtime takes a window that lies in the padding alone.
        if any((*batch, *channels)) or np.any(np.max(space, axis=1) >= np.asarray(kernel)):
            continue
        kept = [a for a in node.attribute if a.name not in ("auto_pad", "pads")]
        pads = helper.make_attribute(
            "pads", [side for sides in zip(*space, strict=True) for side in sides]
        )
        node.ClearField("attribute")
        node.attribute.extend([*kept, pads])
        whole, result = pad.input[0], f"{moved.output[0]}.whole"
        node.input[0] = graph.put(moved, [whole], result)
        if len(shape := graph.shapes.get(whole, ())) == len(order):
            graph.shapes[result] = tuple(shape[axis] for axis in order)
        found = True
    if found:
        graph.order()


def _nothing_around(graph: Graph, node: Any) -> list[tuple[int, int]] | None:
    """How much there is before and behind each axis, where a node pads with minus infinity."""
    if node.op_type != "Pad" or attribute(node, "mode", b"constant") != b"constant":
        return None
    if len(node.input) != 3 or not all(name in graph.arrays for name in node.input[1:]):
        return None
    pads, outside = (graph.arrays[name] for name in node.input[1:])
    if not np.all(np.isneginf(outside)) or np.any(pads < 0):
        return None
    before, behind = pads.reshape(2, -1).tolist()
    return list(zip(before, behind, strict=True))


def _integers(graph: Graph, node: Any) -> np.dtype | None:
    """The dtype of operands that are integers, as a stored one says; None where none says so."""
    found = [graph.arrays[name].dtype for name in node.input if name in graph.arrays]
    return next((kind for kind in found if np.issubdtype(kind, np.integer)), None)


def _beside(graph: Graph, node: Any, number: float) -> str | None:
    """The other operand, where one is this number and makes the result no larger."""
    for x, other in (node.input, reversed(node.input)):
        found, rank = graph.arrays.get(other), len(graph.shapes.get(x, ()))
        if found is None or x in graph.arrays or found.size != 1 or found.ndim > rank:
            continue
        if np.issubdtype(found.dtype, np.floating) and found == number:
            return x
    return None


def _inserted(graph: Graph, node: Any) -> list[int] | None:
    """The axes of size 1 that a shape has more than what it is made of, if that is all."""
    before, after = (graph.shapes.get(name) for name in (node.input[0], node.output[0]))
    if not before or not after or len(after) <= len(before) or node.input[1] in graph.arrays:
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


def _pooled(graph: Graph) -> None:
    """A sum over space by the number of its entries is a mean, for which runtimes have a kernel."""
    for node in graph.nodes:
        total = graph.made.get(node.input[0]) if node.op_type == "Div" else None
        if total is None or total.op_type != "ReduceSum" or graph.uses[node.input[0]] > 1:
            continue
        axes, size = graph.arrays.get(total.input[1]), graph.arrays.get(node.input[1])
        shape = graph.shapes.get(total.input[0], ())
        if axes is None or size is None or len(shape) != 4 or sorted(axes % 4) != [2, 3]:
            continue
        area = np.prod([side if isinstance(side, int) else 0 for side in shape[2:]])
        if not np.issubdtype(size.dtype, np.floating) or size.size != 1 or size != area:
            continue
        (result,) = node.output
        if keeps_axes(total):
            graph.put("GlobalAveragePool", [total.input[0]], result)
        else:
            pooled = graph.put("GlobalAveragePool", [total.input[0]], f"{result}.pooled")
            graph.put("Flatten", [pooled], result, axis=1)
    graph.order()


def _gated(graph: Graph) -> None:
    """Products between a mean over space and a gate for all of it keep the axes of space.

    As convolutions they are in the order of those around them.
    """
    for node in graph.nodes:
        axes = graph.arrays.get(node.input[1]) if node.op_type == "Unsqueeze" else None
        if axes is None or not np.array_equal(axes, [2, 3]):
            continue
        chain, value = [], node.input[0]
        while (at := graph.made.get(value)) is not None and graph.uses[value] == 1:
            chain.append(at)
            if at.op_type == "Flatten" or not _in_gate(graph, at):
                break
            (value,) = (name for name in at.input if name not in graph.arrays)
        if not chain or chain[-1].op_type != "Flatten":
            continue
        pooled = graph.made.get(chain[-1].input[0])
        if pooled is None or pooled.op_type != "GlobalAveragePool":
            continue
        value = chain[-1].input[0]
        for at in reversed(chain[:-1]):
            result = f"{at.output[0]}.gate"
            if at.op_type == "Gemm":
                _, weights, bias = at.input
                matrix = graph.arrays[weights]
                matrix = matrix if attribute(at, "transB") else matrix.T
                name = graph.keep(f"{weights}.conv", np.ascontiguousarray(matrix[..., None, None]))
                value = graph.put("Conv", [value, name, bias], result)
            else:
                given = [value if name not in graph.arrays else name for name in at.input]
                value = graph.put(at, given, result)
        graph.put("Identity", [value], node.output[0])
    graph.order()


def _in_gate(graph: Graph, node: Any) -> bool:
    """Whether it is as good with two axes more: a product with a bias, or of one operand."""
    if node.op_type == "Gemm":
        plain = all(attribute(node, name, 1.0) == 1.0 for name in ("alpha", "beta"))
        plain = plain and not attribute(node, "transA")
        stored = len(node.input) == 3 and all(name in graph.arrays for name in node.input[1:])
        return plain and stored and graph.arrays[node.input[2]].ndim == 1
    others = [name for name in node.input if name not in graph.arrays]
    scalars = all(graph.arrays[name].ndim == 0 for name in node.input if name in graph.arrays)
    return node.op_type in ELEMENTWISE and len(others) == 1 and scalars
