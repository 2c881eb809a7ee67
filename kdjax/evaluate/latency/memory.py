"""The memory that a file takes to be loaded and run, in a process that does nothing else.

The process is this very module run as a script: it imports numpy and the runtime alone.
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

_CALLS = 3


def peak_memory(path: str | os.PathLike[str], *, threads: int, batch: int) -> int | None:
    """Bytes by which the resident memory of a process rises at most, from before a file is loaded.

    What the runtime's own code takes once it is imported is not counted, so this is what one more
    model costs in a process that has it.

    Args:
      path: of an ONNX or a LiteRT file that its runtime can run.
      threads: of one operator.
      batch: size of every first dimension that the model leaves open.

    Returns:
      None where the system does not say: it is asked for `/proc/self/status`, which is Linux's.
    """
    if not os.path.exists("/proc/self/clear_refs"):
        return None
    arguments = [os.path.abspath(__file__), os.fspath(path), str(threads), str(batch)]
    done = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, timeout=600, check=False
    )
    return int(done.stdout) if done.returncode == 0 else None


def _resident(field: str) -> int:
    with open("/proc/self/status") as file:
        (line,) = (line for line in file if line.startswith(f"{field}:"))
    return int(line.split()[1]) * 1024


def _run_onnx(path: str, threads: int, batch: int) -> int:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    before = _start()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    feeds = {}
    for value in session.get_inputs():
        shape = [size if isinstance(size, int) and size >= 0 else batch for size in value.shape]
        kind = value.type.removeprefix("tensor(").removesuffix(")")
        kind = {"float": "float32", "double": "float64"}.get(kind, kind)
        feeds[value.name] = _filled(shape, kind)
    for _ in range(_CALLS):
        session.run(None, feeds)
    return before


def _run_litert(path: str, threads: int, batch: int) -> int:
    from ai_edge_litert.interpreter import Interpreter  # pyright: ignore[reportMissingImports]

    before = _start()
    interpreter = Interpreter(path, num_threads=threads)
    for value in interpreter.get_input_details():
        shape = [batch if size < 0 else int(size) for size in value["shape_signature"]]
        if list(value["shape"]) != shape:
            interpreter.resize_tensor_input(value["index"], shape)
    interpreter.allocate_tensors()
    for _ in range(_CALLS):
        for value in interpreter.get_input_details():
            interpreter.set_tensor(value["index"], _filled(value["shape"], value["dtype"]))
        interpreter.invoke()
    return before


def _filled(shape: Sequence[int], dtype: Any) -> np.ndarray:
    """Zeros that are written: `np.zeros` takes no memory until it is."""
    values = np.empty(shape, dtype)
    values.fill(0)
    return values


def _start() -> int:
    """Lets the peak begin anew; returns what is resident now."""
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    return _resident("VmRSS")


if __name__ == "__main__":
    run = _run_litert if sys.argv[1].endswith(".tflite") else _run_onnx
    before = run(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
    print(max(_resident("VmHWM") - before, 0))
