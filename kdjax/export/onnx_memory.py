"""Loads and runs an ONNX file, for `kdjax.export.peak_memory`; imports the runtime and numpy alone."""

from collections.abc import Callable

import numpy as np

_CALLS = 3


def run(path: str, *, threads: int, batch: int, start: Callable[[], None]) -> None:
    """A few calls of zeros, which are written: `np.zeros` takes no memory until it is."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    start()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    feeds = {}
    for value in session.get_inputs():
        shape = [size if isinstance(size, int) and size >= 0 else batch for size in value.shape]
        kind = value.type.removeprefix("tensor(").removesuffix(")")
        feeds[value.name] = np.full(
            shape, 0, {"float": "float32", "double": "float64"}.get(kind, kind)
        )
    for _ in range(_CALLS):
        session.run(None, feeds)
