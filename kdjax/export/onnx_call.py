"""A call that runs an ONNX file on made-up inputs, to be timed."""

import importlib
import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from kdjax.export.dummy_inputs import check_batch, check_positive, is_open, line, made_up
from kdjax.export.onnx_session import open_session
from kdjax.export.shapes import LONGEST, RATES, SHORTEST, STREAM
from kdjax.export.stream import PIECE
from kdjax.files import from_json
from kdjax.types import BadFile, BadInput, length_of

_TYPES = {
    "tensor(float16)": np.dtype(np.float16),
    "tensor(float)": np.dtype(np.float32),
    "tensor(double)": np.dtype(np.float64),
    "tensor(bool)": np.dtype(np.bool_),
} | {
    f"tensor({sign}int{bits})": np.dtype(f"{sign}int{bits}")
    for sign in ("", "u")
    for bits in (8, 16, 32, 64)
}


def onnx_call(
    path: str | os.PathLike[str], *, threads: int, batch: int, length: int | None = None
) -> Callable[[], Any]:
    """Runs the model once per call, on the CPU, with inputs made up here.

    Float inputs are standard normal, uint8 inputs random bytes (images), lengths of another input all
    that it has, other integers 0 (a valid token or index), bools True; always the same ones. The model
    has run once when this returns.

    Args:
      path: a local ONNX file.
      threads: threads of one operator; operators run one after the other.
      batch: size of every first dimension that the model leaves open.
      length: of every other one; by default the longest that the file says it takes.

    Returns:
      The call, which blocks and returns the list of outputs.

    Raises:
      BadInput: onnxruntime is not installed, the file is missing or is not a model that it can run,
        or an input has an open dimension beside the batch or a batch fixed to another size.
    """
    check_positive(threads=threads, batch=batch)
    try:
        importlib.import_module("onnxruntime")
    except ModuleNotFoundError:
        mend = 'pip install "kdjax[export]"'
        raise BadInput("", "onnxruntime is not installed", mend) from None
    if not os.path.isfile(path):
        raise BadFile(path, "no such file")

    # Every error of onnxruntime is a direct child of Exception.
    try:
        session = open_session(os.fspath(path), threads=threads, quiet=True)
    except Exception as error:
        raise BadFile(path, f"not a model onnxruntime can load: {line(error)}") from error

    said = session.get_modelmeta().custom_metadata_map
    longest, shortest = (from_json(said.get(f"kdjax.{x}", "{}")) for x in (LONGEST, SHORTEST))
    most = length
    if length is not None:
        check_positive(length=length)
        if pieces := from_json(said.get(f"kdjax.{STREAM}", "null")):
            shortest, given = {PIECE: pieces["least"]}, {PIECE}  # what is kept is as long as it is
        else:
            given = _open(session)
            most = min((longest[name] for name in given if name in longest), default=length)
        least = max((shortest.get(name, 1) for name in given), default=1)
        if length < least:
            raise BadFile(path, f"takes {least} positions or more, and not {length}")
        longest = {**longest, **dict.fromkeys(given, length)}
    sizes = {value.name: value.shape[0] for value in session.get_inputs() if value.shape}
    check_batch(path, sizes, batch)
    random = np.random.default_rng(0)
    feeds = {
        value.name: _made_up(path, value, batch, longest, random) for value in session.get_inputs()
    }
    for name in [name for name in feeds if length_of(name) in feeds]:
        feeds[length_of(name)][...] = feeds[name].shape[1]  # a recurrent layer stops there

    def call():
        return session.run(None, feeds)

    try:
        call()
    except Exception as error:
        if length is not None and most is not None and length > most:
            fault = f"does not run with {length} positions, and says that it takes up to {most}"
            raise BadFile(path, fault, f"ask for {most} or less") from error
        raise BadFile(path, f"does not run on made-up inputs: {line(error)}") from error
    return call


def onnx_seconds(path: str | os.PathLike[str], *, length: int | None = None) -> float | None:
    """How long an example of `onnx_call` lasts, by the rate of the first input that the file says one of.

    Args:
      path: a local ONNX file.
      length: as of `onnx_call`.

    Returns:
      Seconds; None where the file says no rate.
    """
    import onnx

    model = onnx.load(os.fspath(path), load_external_data=False)
    said = {entry.key: entry.value for entry in model.metadata_props}
    longest, rates = (from_json(said.get(f"kdjax.{x}", "{}")) for x in (LONGEST, RATES))
    for value in model.graph.input:
        if value.name in rates:
            size = value.type.tensor_type.shape.dim[1]
            open_size = length or longest.get(size.dim_param, 0)
            return (size.dim_value or open_size) / rates[value.name]
    return None


def _open(session: Any) -> set[str]:
    """Names of the dimensions beside the batch that a file leaves open."""
    return {
        size for value in session.get_inputs() for size in value.shape[1:] if isinstance(size, str)
    }


def _made_up(
    path, value, batch: int, lengths: Mapping[str, int], random: np.random.Generator
) -> np.ndarray:
    """Something of the input's shape and type."""
    shape = [size if not is_open(size) else lengths.get(size, size) for size in value.shape]
    if shape and is_open(value.shape[0]):
        shape[0] = batch
    if value.type not in _TYPES:
        raise BadFile(path, f"input {value.name!r} is a {value.type}: only numbers can be made up")
    return made_up(path, value.name, shape, _TYPES[value.type], random)
