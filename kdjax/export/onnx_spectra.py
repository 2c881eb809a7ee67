"""Log-mel spectra in a file: what makes their constants, and not the constants themselves.

The Fourier kernel of a frame of 256 samples is 264 kB, more than many a network on top of it, and the
bands are zeros but for two numbers a bin. A file has a turn of the cosine and of the sine, the window,
and the numbers that are not zero; what is computed of them depends on no input, and ONNX Runtime does it
once, when it loads the file. XLA and LiteRT would do it in each call, so their files have the constants.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Float32

from kdjax.export.onnx_graph import ELEMENTWISE, Graph
from kdjax.models.fourier import Turn, fourier, turn

_MOVES = frozenset(["Slice", "Split", "Transpose"])


def as_formulas(graph: Graph) -> None:
    """The kernel of each spectrum in a graph, and the bands behind it, become what makes them."""
    found = False
    for node in [node for node in graph.nodes if node.op_type == "Conv"]:
        kernel = graph.arrays.get(node.input[1])
        if kernel is None or (made := _turn(kernel)) is None:
            continue
        node.input[1] = _kernel(graph, node.input[1], *made)
        for product in _read_by(graph, node.output[0]):
            if (bands := graph.arrays.get(product.input[1])) is not None and bands.ndim == 2:
                product.input[1] = _sparse(graph, product.input[1], bands)
        found = True
    if found:
        graph.order()


def _turn(kernel: np.ndarray) -> tuple[Turn, int, int] | None:
    """What a kernel [2 bins, 1, frame] is made of, its first bin and how many; None of another one."""
    if kernel.ndim != 3 or kernel.shape[1] != 1 or len(kernel) % 2 or kernel.dtype != np.float32:
        return None
    count, frame = len(kernel) // 2, kernel.shape[2]
    for convention in ("librosa", "kaldi"):  # Whisper's is librosa's
        whole = fourier(frame, convention).astype(np.float32).T
        bins = len(whole) // 2
        for first in range(bins - count + 1):
            if np.array_equal(kernel[:count, 0], whole[first : first + count]) and np.array_equal(
                kernel[count:, 0], whole[bins + first : bins + first + count]
            ):
                return turn(frame, convention), first, count
    return None


def _kernel(graph: Graph, name: str, made: Turn, first: int, count: int) -> str:
    """Puts in what makes a kernel, see `kdjax.models.fourier.fourier`; gives its name."""
    size, frame = len(made.cosine), len(made.window)

    def keep(part: str, array: Any, dtype: Any) -> str:
        return graph.keep(f"{name}.{part}", np.asarray(array, dtype))

    def put(part: str, kind: str, *inputs: str, **attributes: Any) -> str:
        return graph.put(kind, list(inputs), f"{name}.{part}", **attributes)

    def counted(part: str, begin: int, end: int) -> str:
        ends = keep(f"{part}.begin", begin, np.int32), keep(f"{part}.end", end, np.int32)
        return put(part, "Range", *ends, keep("one", 1, np.int32))

    rows = put(
        "rows", "Unsqueeze", counted("bins", first, first + count), keep("last", [1], np.int64)
    )
    angle = put("angle", "Mul", rows, counted("samples", 0, frame))
    angle = put("turned", "Mod", angle, keep("size", size, np.int32))
    parts = []
    for part in ("cosine", "sine"):
        table = keep(f"{part}.turn", getattr(made, part), np.float32)
        parts.append(put(part, "Gather", table, angle))
    both = put("both", "Concat", *parts, axis=0)
    kernel = put("windowed", "Mul", both, keep("window", made.window, np.float32))
    if made.preemphasis:
        zero, one = (keep(f"at{i}", [i], np.int64) for i in (0, 1))
        ends = keep("end", [frame], np.int64)
        # What a sample is subtracted from: the one behind it, and the first one itself.
        behind = put("behind", "Slice", kernel, one, ends, one)
        behind = put("shifted", "Pad", behind, keep("after", [0, 0, 0, 1], np.int64))
        itself = put("first", "Slice", kernel, zero, one, one)
        itself = put("itself", "Pad", itself, keep("rest", [0, 0, 0, frame - 1], np.int64))
        less = put("less", "Add", behind, itself)
        less = put("lessened", "Mul", less, keep("share", made.preemphasis, np.float32))
        kernel = put("emphasised", "Sub", kernel, less)
        mean = put("mean", "ReduceMean", kernel, one, keepdims=1)
        kernel = put("centred", "Sub", kernel, mean)
    return put("made", "Unsqueeze", kernel, keep("channel", [1], np.int64))


def _read_by(graph: Graph, value: str) -> Iterator[Any]:
    """The products that a spectrum goes into, by way of its power."""
    seen, pending = {value}, [value]
    while pending:
        at = pending.pop()
        for node in graph.nodes:
            if at not in node.input:
                continue
            if node.op_type == "MatMul" and node.input[0] == at:
                yield node
            elif node.op_type in ELEMENTWISE | _MOVES:
                new = set(node.output) - seen
                seen |= new
                pending += new


def _sparse(graph: Graph, name: str, array: Float32[np.ndarray, "row column"]) -> str:
    """Puts in what makes an array of its entries that are not zero; gives its name."""
    flat = array.reshape(-1)
    places = np.flatnonzero(flat).astype(np.int32)
    if 3 * places.size > flat.size:
        return name
    size = graph.keep(f"{name}.size", np.asarray([flat.size], np.int64))
    zeros = graph.put("ConstantOfShape", [size], f"{name}.zeros")
    given = [graph.keep(f"{name}.places", places), graph.keep(f"{name}.entries", flat[places])]
    filled = graph.put("ScatterElements", [zeros, *given], f"{name}.filled", axis=0)
    shape = graph.keep(f"{name}.shape", np.asarray(array.shape, np.int64))
    return graph.put("Reshape", [filled, shape], f"{name}.made")
