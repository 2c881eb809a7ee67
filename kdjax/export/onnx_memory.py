"""Loads and runs an ONNX file, for `kdjax.export.peak_memory`; imports the runtime and numpy alone."""

import json
from collections.abc import Callable

import numpy as np

PRECISE = ("session.x64quantprecision", "1")
"""A setting of a session in which products of integers are exact on every x86 processor.

Without it, on AVX2 or AVX-512 without VNNI, ONNX Runtime adds pairs of products of uint8 and int8 in
16 bits, and a sum beyond them is cut. With it the weights are made uint8 there when a file is loaded,
which is exact and slower; on other processors it changes nothing.
"""

_CALLS = 3


def run(
    path: str, *, threads: int, batch: int, length: int | None, start: Callable[[], None]
) -> None:
    """A few calls of zeros, which are written: `np.zeros` takes no memory until it is."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.add_session_config_entry(*PRECISE)
    start()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    # As long as may be, of what a file leaves open beside the batch.
    said = session.get_modelmeta().custom_metadata_map.get("kdjax.longest", "{}")
    feeds, longest = {}, json.loads(said)
    for value in session.get_inputs():
        shape = [
            size if isinstance(size, int) and size >= 0 else (length or longest.get(size, batch))
            for size in value.shape
        ]
        if value.shape and not isinstance(value.shape[0], int):
            shape[0] = batch
        kind = value.type.removeprefix("tensor(").removesuffix(")")
        feeds[value.name] = np.full(
            shape, 0, {"float": "float32", "double": "float64"}.get(kind, kind)
        )
    for name in [name for name in feeds if f"{name}_length" in feeds]:
        feeds[f"{name}_length"][...] = feeds[name].shape[1]  # a recurrent layer stops there
    for _ in range(_CALLS):
        session.run(None, feeds)
