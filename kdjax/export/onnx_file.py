"""ONNX through jax2onnx, run by ONNX Runtime."""

import importlib
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from flax.linen import pooling
from flax.linen.module import wrap_method_once
from jax import lax
from jaxtyping import Array, Float

from kdjax.export.converters import jax2onnx
from kdjax.export.extras import require
from kdjax.export.onnx_session import open_session
from kdjax.export.parity import CLOSE, TOLERANCE, Reference
from kdjax.export.pools import POOLS, named, padded
from kdjax.export.shapes import (
    LONGEST,
    RATES,
    SHORTEST,
    STREAM,
    longest,
    named_shapes,
    open_shapes,
    rates,
    shortest,
    sizes,
)
from kdjax.export.simplified import simplify
from kdjax.export.traced import traced
from kdjax.types import BadFile, BadInput, Fields

OPSET = 21
"""The newest that every ONNX Runtime since 1.20 reads."""

IR_VERSION = 10
"""Of the file around the operators: what came with opset 21, and as many runtimes read."""

RUNTIME = "1.20"
"""The oldest ONNX Runtime that reads both."""

READ = {
    "format": f"ONNX opset {OPSET}, IR version {IR_VERSION}",
    "reads": f"ONNX Runtime {RUNTIME} or newer",
}
"""What a file says of what reads it."""

ASIDE = (LONGEST, SHORTEST, RATES, STREAM)
"""What is said of a file for programs, and not in its description."""

NEEDS = ("jax2onnx", "onnx", "onnxruntime")
"""What is imported to write and run a file."""


def write_onnx(
    predict: Callable[..., Float[Array, "batch ..."]],
    path: str | os.PathLike[str],
    *,
    inputs: Fields,
    output: str = "logits",
    tolerance: float = TOLERANCE,
) -> None:
    """Writes `predict`, its parameters inside, for any batch of 1 or more.

    Ragged inputs may be of any length from their shortest on, whichever was the longest in training: a
    model that has a parameter for each position takes no more of them, and the file does not say so.

    The file is run on made-up inputs before it is written, and must give what `predict` gives there.
    jax2onnx puts layers of its own in the place of linen's, which give files with fewer operators
    and do not always do what linen's do. Where the file with them is not right, or cannot be made,
    it is made of the operations that the model is traced to without them.

    BatchNorm should be folded: it is more operators than the convolution that it could be part of.

    Args:
      predict: the model in evaluation, of as many arrays as there are inputs, in their order.
      path: of the file.
      inputs: of one example, by the names that the file gives them.
      output: name of what `predict` gives, in the file.
      tolerance: largest difference of an output, relative to the largest live one.

    Raises:
      BadInput: the extra is not installed, or jax2onnx cannot write this model rightly; nothing has
        been written then.
    """
    require("ONNX", *NEEDS, extra="export")
    ways = [
        lambda: _layer_by_layer(predict, inputs, output),
        lambda: as_traced(predict, dict(zip(inputs, open_shapes(inputs), strict=True)), [output]),
    ]
    model = best(ways, Reference(predict, inputs), tolerance=tolerance)
    facts = accepts(inputs)
    known = ((LONGEST, longest(inputs)), (SHORTEST, shortest(inputs)), (RATES, rates(inputs)))
    for name, found in known:
        if found:
            facts[name] = json.dumps(found)
    save(model, path, facts)


def best(
    ways: Sequence[Callable[[], Any]], reference: Reference, *, tolerance: float = TOLERANCE
) -> Any:
    """The model of the first way whose outputs are the live model's, or of the nearest one.

    Args:
      ways: each makes a ModelProto, or raises.
      reference: what its outputs are to be.
      tolerance: largest difference of an output, relative to the largest live one.

    Raises:
      BadInput: there is none.
    """
    import onnx

    nearest, found, why = math.inf, None, ""
    for convert in ways:
        try:
            model = convert()
            onnx.checker.check_model(model)
            session = open_session(model.SerializeToString(), threads=1, quiet=True)
            apart = reference.apart(lambda inputs: session.run(None, inputs))  # noqa: B023
        except Exception as error:  # whatever jax2onnx and the runtime say of a model
            why = f"{type(error).__name__}: {error}".splitlines()[0]
            continue
        if found is None or apart < nearest:
            nearest, found = apart, model
        if nearest <= CLOSE:
            break
    if found is None:
        raise BadInput("", f"ONNX cannot hold this model, choose another format: {why}")
    if nearest > tolerance:
        raise BadInput(
            "",
            "ONNX: jax2onnx does not write this model rightly, choose another format: an output differs "
            f"by {nearest:.2g} of the largest one from the live model's",
        )
    return found


def save(model: Any, path: str | os.PathLike[str], facts: Mapping[str, str]) -> None:
    """Writes a model, with what is said of it in its metadata and its description."""
    model.doc_string = "; ".join(
        f"{name}: {value}" for name, value in facts.items() if name not in ASIDE
    )
    for name, value in facts.items():
        model.metadata_props.add(key=f"kdjax.{name}", value=value)
    Path(path).write_bytes(model.SerializeToString())


def _layer_by_layer(predict: Callable[..., Any], inputs: Fields, output: str) -> Any:
    """The model with jax2onnx's own layers for linen's."""
    written = _written()

    def inlined(*arrays):
        # jax2onnx 0.17 cannot read a jitted function within another (SiLU is one) on jax 0.12.
        with jax.disable_jit(), _no_reduced_precision(), _called_as_linen(written):
            return predict(*arrays)

    return _converted(inlined, dict(zip(inputs, named_shapes(inputs), strict=True)), [output])


def as_traced(
    predict: Callable[..., Any], shapes: Mapping[str, jax.ShapeDtypeStruct], outputs: Sequence[str]
) -> Any:
    """The model as its operations, traced before jax2onnx replaces anything.

    Args:
      predict: of as many arrays as there are shapes; it gives as many as there are outputs.
      shapes: by the names of the inputs.
      outputs: their names.
    """
    with jax.disable_jit(), _no_reduced_precision():
        operations = traced(predict, *shapes.values())
    return _converted(operations, shapes, outputs)


def _converted(
    function: Callable[..., Any],
    shapes: Mapping[str, jax.ShapeDtypeStruct],
    outputs: Sequence[str],
) -> Any:
    with jax.numpy_rank_promotion("allow"):  # jax2onnx's own shape inference relies on it
        model = jax2onnx().to_onnx(
            function,
            inputs=list(shapes.values()),
            input_names=list(shapes),
            output_names=list(outputs),
            model_name="kdjax",
            opset=OPSET,
        )
    # Those that jax2onnx 0.17 notes are wrong beside an identity shortcut; every runtime infers its own.
    del model.graph.value_info[:]
    simplify(model)
    model.ir_version = IR_VERSION
    return model


def add_metadata(path: str | os.PathLike[str], name: str, value: str) -> None:
    """Adds an entry `kdjax.NAME` to the metadata of a file."""
    onnx = importlib.import_module("onnx")
    model = onnx.load(os.fspath(path))
    model.metadata_props.add(key=f"kdjax.{name}", value=value)
    onnx.save(model, os.fspath(path))


def accepts(inputs: Fields) -> dict[str, str]:
    """What a file takes and what reads it, as its metadata and the manifest say it."""
    return {
        **{name: f"{field.dtype} {sizes(field)}, raw" for name, field in inputs.items()},
        "batch": "any of 1 or more",
        **READ,
    }


def _written() -> dict[type, Any]:
    """The `__call__` of each of linen's layers as linen has it, maybe in a base of the layer."""
    layers = [x for x in vars(nn).values() if isinstance(x, type) and issubclass(x, nn.Module)]
    return {layer: call for layer in layers if (call := _call_of(layer)) is not None}


def _call_of(layer: type) -> Any:
    return next((vars(c)["__call__"] for c in layer.__mro__ if "__call__" in vars(c)), None)


@contextmanager
def _called_as_linen(written: Mapping[type, Any]) -> Iterator[None]:
    """Calls what jax2onnx has put in the place of linen's own as linen calls its own, for a while.

    A method that is put into a class goes past linen's interception, on which `kdjax.shrink.Narrowed`
    rests; and its pools are functions of keywords alone, which know of paddings only their names.

    Args:
      written: what the layers had before.
    """
    before: list[tuple[Any, str, Any]] = []

    def put(owner: Any, name: str, value: Any) -> None:
        before.append((owner, name, getattr(owner, name)))
        setattr(owner, name, value)

    try:
        for layer, own in written.items():
            if (replaced := _call_of(layer)) is not own:
                put(layer, "__call__", _intercepted(replaced))
        for name, (own, outside) in POOLS.items():
            for module in (nn, pooling):
                if (replaced := getattr(module, name, own)) is not own:
                    put(module, name, padded(replaced, own, outside))
        for module in (nn, pooling):
            put(module, "pool", named)
        yield
    finally:
        for owner, name, value in reversed(before):
            setattr(owner, name, value)


def _intercepted(replaced: Callable[..., Any]) -> Callable[..., Any]:
    """A method as linen would have made it, had it been in the class from the beginning."""

    def __call__(self, *args, **kwargs):  # noqa: N807 - interceptors are told the name
        return replaced(self, *args, **kwargs)

    return wrap_method_once(__call__)


@contextmanager
def _no_reduced_precision() -> Iterator[None]:
    """Leaves `lax.reduce_precision` to 22 bits out while a function is traced.

    The views use it to keep XLA from fusing a product with the sum behind it. In ONNX it is a dozen
    operators with a logarithm, to round the last bit of a product that no runtime there fuses.
    """
    before = lax.reduce_precision

    def whole(x, exponent_bits, mantissa_bits):
        if (exponent_bits, mantissa_bits) == (8, 22):
            return x
        return before(x, exponent_bits, mantissa_bits)

    lax.reduce_precision = whole
    try:
        yield
    finally:
        lax.reduce_precision = before


def load_onnx(
    path: str | os.PathLike[str], *, threads: int
) -> Callable[..., Float[np.ndarray, "batch ..."]]:
    """The file in ONNX Runtime on the CPU, with `threads` threads inside an operator.

    Returns:
      The function in the file, of its inputs in their order, giving its first output.

    Raises:
      BadInput: ONNX Runtime is not installed; or, when it is called, the batch has no example: the
        kernels of ONNX Runtime divide by their number.
    """
    require("ONNX", "onnxruntime", extra="export")
    session = open_session(os.fspath(path), threads=threads)
    names = [given.name for given in session.get_inputs()]
    output = session.get_outputs()[0].name

    def run(*inputs: np.ndarray) -> np.ndarray:
        if not len(inputs[0]):
            raise BadFile(os.fspath(path), "takes a batch of 1 or more examples, not of 0")
        return np.asarray(session.run([output], dict(zip(names, inputs, strict=True)))[0])

    return run
