"""A call that runs a LiteRT file on made-up inputs, to be timed."""

import importlib
import os
from collections.abc import Callable
from typing import Any

import numpy as np

from kdjax.export.dummy_inputs import check_batch, check_positive, is_open, line, made_up
from kdjax.types import BadFile, BadInput


def litert_call(path: str | os.PathLike[str], *, threads: int, batch: int) -> Callable[[], Any]:
    """Runs the model once per call, on the CPU, with inputs made up here as for `onnx_call`.

    Args:
      path: a local .tflite file.
      threads: threads of one operator.
      batch: size of every first dimension that the model leaves open; of the others, what they are.

    Returns:
      The call, which blocks and returns the list of outputs.

    Raises:
      BadInput: ai-edge-litert is not installed, the file is missing or is not a model that it can
        run, or an input has an open dimension beside the batch or a batch fixed to another size.
    """
    check_positive(threads=threads, batch=batch)
    try:
        runtime: Any = importlib.import_module("ai_edge_litert.interpreter")
    except ModuleNotFoundError:
        mend = 'pip install "kdjax[litert]"'
        raise BadInput("", "ai-edge-litert is not installed", mend) from None
    if not os.path.isfile(path):
        raise BadFile(path, "no such file")
    try:
        interpreter = runtime.Interpreter(os.fspath(path), num_threads=threads)
    except (ValueError, RuntimeError) as error:
        raise BadFile(path, f"not a model LiteRT can load: {line(error)}") from error

    random = np.random.default_rng(0)
    inputs, sizes = interpreter.get_input_details(), {}
    for value in inputs:
        # -1 where the size is open.
        shape = [int(size) for size in value["shape_signature"]]
        if shape:
            sizes[value["name"]] = shape[0]
            shape[0] = batch if is_open(shape[0]) else shape[0]
        value["feed"] = made_up(path, value["name"], shape, np.dtype(value["dtype"]), random)
    check_batch(path, sizes, batch)
    outputs = [value["index"] for value in interpreter.get_output_details()]

    def call() -> list[np.ndarray]:
        for value in inputs:
            interpreter.set_tensor(value["index"], value["feed"])
        interpreter.invoke()
        return [interpreter.get_tensor(index) for index in outputs]

    try:
        for value in inputs:
            if list(value["shape"]) != list(value["feed"].shape):
                interpreter.resize_tensor_input(value["index"], value["feed"].shape)
        interpreter.allocate_tensors()
        call()
    except (ValueError, RuntimeError) as error:
        raise BadFile(path, f"does not run on made-up inputs: {line(error)}") from error
    return call
