"""An ONNX file that is given an example in pieces, and what was kept of the pieces before.

jax2onnx writes the network, of a piece that what is kept of the input stands before; putting the two
together, and cutting off what the next piece begins with, are a few operators around it.
"""

import json
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jax import export

from kdjax.export.extras import require
from kdjax.export.onnx_file import NEEDS, READ, as_traced, best, save
from kdjax.export.onnx_integers import write_quantized
from kdjax.export.onnx_session import open_session
from kdjax.export.parity import Reference
from kdjax.export.shapes import LONGEST, RATES, STREAM, rates
from kdjax.export.stream import PIECE, Stream, in_pieces
from kdjax.files import from_json
from kdjax.types import BadFile

_KEPT = "kept"
"""Name of the number of positions that are kept of the input."""


def write_stream(stream: Stream, path: str | os.PathLike[str], *, output: str) -> None:
    """Writes the file of a model for pieces, for any batch and pieces of any length from its least on.

    It is run on made-up pieces before it is written, and must give what the model gives there.

    Args:
      stream: the model.
      path: of the file.
      output: name of the answers, in the file.

    Raises:
      BadInput: the extra is not installed, or jax2onnx cannot write this model rightly, or not with
        its integers; nothing has been written then.
    """
    require("ONNX", *NEEDS, extra="export")
    least = stream.framing.least + stream.framing.before
    batch, positions = export.symbolic_shape(f"batch, {PIECE}", constraints=[f"{PIECE} >= {least}"])
    shapes = dict(zip((stream.field, *stream.state), stream.arrays(batch, positions), strict=True))
    outputs = [output, *(f"{name}_next" for name in stream.state)]
    reference = Reference(stream.predict, {}, cases=stream.cases(2))
    model = best([lambda: as_traced(stream.predict, shapes, outputs)], reference)
    if stream.kept is not None:
        _keep(model, stream, output)
    size = list(map(str, stream.whole.shape[1:]))
    facts = {
        stream.field: f"{stream.whole.dtype} [{', '.join(['piece', *size])}], raw",
        "batch": "any of 1 or more",
        **READ,
        LONGEST: json.dumps({PIECE: least + 15 * stream.framing.hop, _KEPT: stream.framing.before}),
        STREAM: json.dumps(stream.said),
    }
    if found := rates({stream.field: stream.whole}):
        facts[RATES] = json.dumps(found)
    if not stream.rules:
        save(model, path, facts)
        return
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch) / "float.onnx"
        save(model, source, facts)
        write_quantized(source, path, stream.plan)


def _keep(model: Any, stream: Stream, output: str) -> None:
    """Puts around a network what joins a piece to what was kept, and cuts off what is kept then."""
    from onnx import helper, numpy_helper

    graph, field, kept = model.graph, stream.field, str(stream.kept)
    whole, after = f"{field}.whole", f"{kept}_next"
    for node in graph.node:
        node.input[:] = [whole if name == field else name for name in node.input]
    constants = {
        "hop": np.asarray([stream.framing.hop], np.int64),
        "end": np.asarray([np.iinfo(np.int64).max], np.int64),
        "axis": np.asarray([1], np.int64),
    }
    names = {name: f"{kept}.{name}" for name in constants}
    graph.initializer.extend(
        numpy_helper.from_array(array, names[name]) for name, array in constants.items()
    )
    first = helper.make_node("Concat", [kept, field], [whole], axis=1)
    nodes = [first, *graph.node]
    nodes += [
        helper.make_node("Shape", [output], [f"{kept}.answers"], start=1, end=2),
        helper.make_node("Mul", [f"{kept}.answers", names["hop"]], [f"{kept}.from"]),
        helper.make_node("Slice", [whole, f"{kept}.from", names["end"], names["axis"]], [after]),
    ]
    copies = [type(node).FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(stream.whole.dtype))
    rest = list(stream.whole.shape[1:])
    given, *state = [type(v).FromString(v.SerializeToString()) for v in graph.input]
    del graph.input[:]
    graph.input.extend(
        [given, helper.make_tensor_value_info(kept, kind, ["batch", _KEPT, *rest]), *state]
    )
    answers, *states = [type(v).FromString(v.SerializeToString()) for v in graph.output]
    del graph.output[:]
    graph.output.extend(
        [
            answers,
            helper.make_tensor_value_info(after, kind, ["batch", f"{_KEPT}_next", *rest]),
            *states,
        ]
    )


def load_stream(path: str | os.PathLike[str], *, threads: int) -> Callable[..., np.ndarray]:
    """The file in ONNX Runtime on the CPU, as a function of whole examples that it is given in pieces.

    Returns:
      The function of the inputs of a file that is given all at once, giving its answers.

    Raises:
      BadInput: ONNX Runtime is not installed, or this is a file for whole examples; or, when it is
        called, the batch has no example.
    """
    require("ONNX", "onnxruntime", extra="export")
    session = open_session(os.fspath(path), threads=threads)
    said = session.get_modelmeta().custom_metadata_map.get(f"kdjax.{STREAM}")
    if said is None:
        raise BadFile(os.fspath(path), "takes whole examples, and no pieces")
    said = from_json(said)
    names = [given.name for given in session.get_inputs()]

    def step(piece: np.ndarray, state: Sequence[np.ndarray]) -> Sequence[np.ndarray]:
        return session.run(None, dict(zip(names, (piece, *state), strict=True)))

    def run(*inputs: np.ndarray) -> np.ndarray:
        if not len(inputs[0]):
            raise BadFile(os.fspath(path), "takes a batch of 1 or more examples, not of 0")
        return in_pieces(step, said, *(np.asarray(x) for x in inputs))

    return run
