"""Loads and runs a LiteRT file, for `kdjax.export.peak_memory`; imports the runtime and numpy alone."""

from collections.abc import Callable

import numpy as np

_CALLS = 3


def run(
    path: str, *, threads: int, batch: int, length: int | None, start: Callable[[], None]
) -> None:
    """A few calls of zeros, which are written: `np.zeros` takes no memory until it is."""
    from ai_edge_litert.interpreter import Interpreter  # pyright: ignore[reportMissingImports]

    start()
    interpreter = Interpreter(path, num_threads=threads)
    for value in interpreter.get_input_details():
        shape = [batch if size < 0 else int(size) for size in value["shape_signature"]]
        if list(value["shape"]) != shape:
            interpreter.resize_tensor_input(value["index"], shape)
    interpreter.allocate_tensors()
    for _ in range(_CALLS):
        for value in interpreter.get_input_details():
            zeros = np.full(value["shape"], 0, value["dtype"])
            interpreter.set_tensor(value["index"], zeros)
        interpreter.invoke()
