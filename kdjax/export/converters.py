"""jax2onnx with its converters loaded, which without this compiles what nobody runs."""

import importlib
import importlib.util
from pathlib import Path
from typing import Any

import jax

from kdjax.export import onnx_lstm

_OF_EQUINOX = "jax2onnx.plugins.equinox"


def jax2onnx() -> Any:
    """The package, which knows of `kdjax.recurrence` then.

    It imports all of its converters when it writes the first file. Those of Equinox's layers make layers
    for their own tests as they are imported, with random weights: sixty programs, more time than all of
    a small model's export. No model here has such a layer, so they are imported within a trace, where
    arrays are shapes and nothing is compiled. One that needs numbers fails there; jax2onnx imports it
    again.
    """
    package = importlib.import_module("jax2onnx")
    onnx_lstm.register()
    if _OF_EQUINOX not in _loaded:
        _loaded.add(_OF_EQUINOX)
        jax.eval_shape(_import_below)
    return package


_loaded: set[str] = set()


def _import_below() -> None:
    try:
        found = importlib.util.find_spec(_OF_EQUINOX)
    except ImportError:  # another version has them elsewhere
        return
    for folder in (found and found.submodule_search_locations) or ():
        for path in sorted(Path(folder).rglob("*.py")):
            name = ".".join(path.relative_to(folder).with_suffix("").parts)
            try:
                importlib.import_module(f"{_OF_EQUINOX}.{name}")
            except Exception:
                continue
