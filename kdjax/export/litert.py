"""LiteRT (the former TensorFlow Lite) through StableHLO, without TensorFlow.

`jax.export` gives StableHLO, litert-converter makes a flatbuffer of it, ai-edge-litert runs that.
litert-converter's Python functions have no documentation: what is used of them here was found in
their source, so `pyproject.toml` holds the package to one minor version. It has no types either:
its modules are imported by name.
"""

import importlib
import os
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax import export
from jaxtyping import Array, Float

from kdjax.export.composites import FAKE_QUANT
from kdjax.export.extras import require
from kdjax.export.parity import TOLERANCE, Reference
from kdjax.types import BadInput, Fields

NEEDS = ("litert_converter", "ai_edge_litert")
"""What is imported to write and run a file."""

_SIGNATURE = "serving_default"


def write_litert(
    predict: Callable[..., Float[Array, "1 ..."]],
    path: str | os.PathLike[str],
    *,
    inputs: Fields,
    output: str = "logits",
    tolerance: float = TOLERANCE,
) -> None:
    """Writes `predict`, its parameters inside, for one example a call.

    The file is run on a made-up example before it is written, and must give what `predict` gives there,
    unless its layers are in integers, which is for the caller to compare.

    The batch is fixed to 1. With an open one the graph has three to six times as many operators,
    which compute shapes; and a fixed one that is resized where it is loaded fails for
    squeeze-excitation, attention and resized views, as their shapes are constants of the graph.

    A `jax.lax.composite` named `quant.fake_quant` around the weights or the input of an operator
    (attributes as qwix gives them: `scale`, `zero_point`, `dtype="i8"`, `narrow_range`, and
    `quantization_dimension` where the scale is one of each channel) makes the operator int8, with
    these scales. Where a file has one of them, all of its quantization is as they say.

    Args:
      predict: the model in evaluation, of as many arrays as there are inputs, in their order.
      path: of the file.
      inputs: of one example, by the names that the file gives them.
      output: name of what `predict` gives, in the file.
      tolerance: largest difference of an output, relative to the largest live one.

    Raises:
      BadInput: the extra is not installed, or LiteRT cannot do what `predict` does, or does it
        otherwise; nothing has been written then.
    """
    require("LiteRT", *NEEDS, extra="litert")
    ir, passes, converter = (
        importlib.import_module(f"litert_converter.{name}")
        for name in ("mlir.ir", "mlir.passmanager", "converter_api_ext")
    )
    # Nothing may be left out that the model does not look at: the signature names all.
    whole = jax.jit(predict, keep_unused=True)
    exported = export.export(whole, platforms=["cpu"])(
        *(field.batch(1) for field in inputs.values())
    )
    context = ir.Context()
    converter.prepare_mlir_context(context)
    with context:
        module = ir.Module.parse(exported.mlir_module())
        _drop_reduced_precision(module)
        converter.set_signature(module.operation, _SIGNATURE, list(inputs), [output])
        settings = converter.ConvertToTFLConfig()
        settings.strict_qdq_mode = _is_fake_quantized(module)
        left: list[str] = []
        try:
            converter.run_convert_to_tfl_passes(module, passes.PassManager(), settings)
            names = {operation.name for operation in _operations(module.operation)}
            left = sorted(name for name in names if name.startswith("stablehlo."))
            content = converter.export_flatbuffer_to_bytes(module.operation)
        except ValueError as error:
            # Of operators that are left it says nothing; below its first line are stacks of Python.
            reason = ", ".join(left) or str(error).splitlines()[0]
            raise _cannot_run(reason) from error
    reference = (
        None if settings.strict_qdq_mode else Reference(predict, inputs, batch=1, shares=(1.0,))
    )
    try:
        run = _run(content, threads=1)
        apart = 0.0
        if reference is not None:
            apart = reference.apart(lambda inputs: run(*inputs.values()))
    except (RuntimeError, ValueError) as error:
        raise _cannot_run(" ".join(str(error).split())) from error
    if apart > tolerance:
        raise BadInput(
            "",
            "LiteRT does otherwise than this model, choose another format: an output differs by "
            f"{apart:.2g} of the largest one from the live model's",
        )
    with open(path, "wb") as file:
        file.write(content)


def _cannot_run(reason: str) -> BadInput:
    return BadInput("", f"LiteRT cannot run this model, choose another format: {reason}")


def load_litert(
    path: str | os.PathLike[str], *, threads: int
) -> Callable[..., Float[np.ndarray, "batch ..."]]:
    """The file in LiteRT on the CPU, with `threads` threads inside an operator.

    It takes any batch and runs its examples one after the other, as the file is of one. That costs
    next to nothing: with one thread, 64 images of 32 pixels took 0.92 to 1.17 times as long as in one
    batch, where the model can be resized to it.

    Returns:
      The function in the file, of its inputs in their order.

    Raises:
      BadInput: ai-edge-litert is not installed.
    """
    require("LiteRT", "ai_edge_litert", extra="litert")
    return _run(os.fspath(path), threads=threads)


def _run(model: str | bytes, *, threads: int) -> Callable[..., np.ndarray]:
    runtime = importlib.import_module("ai_edge_litert.interpreter")
    given = {"model_path" if isinstance(model, str) else "model_content": model}
    interpreter = runtime.Interpreter(**given, num_threads=threads)
    interpreter.allocate_tensors()
    given = [value["index"] for value in interpreter.get_input_details()]
    (output,) = interpreter.get_output_details()

    def run(*inputs: np.ndarray) -> np.ndarray:
        found = np.empty((len(inputs[0]), *output["shape"][1:]), np.float32)
        for i in range(len(found)):
            for index, array in zip(given, inputs, strict=True):
                interpreter.set_tensor(index, array[i : i + 1])
            interpreter.invoke()
            found[i] = interpreter.get_tensor(output["index"])[0]
        return found

    return run


def _drop_reduced_precision(module: Any) -> None:
    """Takes `reduce_precision` to 22 bits out of a StableHLO module: LiteRT has no such operator.

    The views use it to keep a compiler from fusing a product with the sum behind it. LiteRT rounds
    between the two anyway; what is lost is the rounding of the product's last bit.
    """
    for operation in list(_operations(module.operation)):
        if operation.name != "stablehlo.reduce_precision":
            continue
        bits = (operation.attributes[f"{part}_bits"].value for part in ("exponent", "mantissa"))
        if tuple(bits) == (8, 22):
            operation.results[0].replace_all_uses_with(operation.operands[0])
            operation.erase()


def _is_fake_quantized(module: Any) -> bool:
    """Whether any call in a StableHLO module is `FAKE_QUANT`."""
    return any(
        operation.name == "stablehlo.composite" and operation.attributes["name"].value == FAKE_QUANT
        for operation in _operations(module.operation)
    )


def _operations(operation: Any) -> Iterator[Any]:
    """All operations below one, at any depth."""
    for region in operation.regions:
        for block in region:
            for inner in block:
                yield inner.operation
                yield from _operations(inner.operation)
