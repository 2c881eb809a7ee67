"""What a file takes, what reads it, and until when that is promised: for its manifest and the report."""

import datetime
import importlib
import os
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from etils import epath
from jax import export

from kdjax.types import Fields

PROMISED = datetime.timedelta(days=180)
"""For how long `jax.export` promises to read what it has written: six months of newer releases."""

BATCHES = {
    ".onnx": "any of 1 or more",
    ".stablehlo": "any of 1 or more",
    ".tflite": "1 example a call",
}
"""By the ending of a file, what batch it takes; `load_litert` calls one with each example of a batch."""


def facts(
    path: epath.PathLike, *, inputs: Fields, today: datetime.date | None = None
) -> dict[str, str]:
    """`accepts`, `format` and `reads` of a file, and `promised_until` (a date) where that ends.

    The date of a StableHLO file is counted from the day that it was written: every jax that has been
    released by then reads it, as `jax.export` promises six months; of a jax that was old on that day,
    the promise is older by as much. Then `kdjax reexport` writes it again. ONNX and LiteRT promise
    to read older files without an end.

    Args:
      path: of the file, whose ending says its format.
      inputs: that it takes, of one example.
      today: the day that it was written, today unless given.
    """
    path = epath.Path(path)
    taken = (f"{name}: {f.dtype} {list(f.shape)}" for name, f in inputs.items())
    found = {"accepts": f"{', '.join(taken)}; {BATCHES[path.suffix]}"}
    match path.suffix:
        case ".stablehlo":
            return found | _stablehlo(path, today or datetime.date.today())
        case ".onnx":
            return found | _onnx(path)
    return found | _litert(path)


def _stablehlo(path: epath.Path, today: datetime.date) -> dict[str, str]:
    version = export.deserialize(bytearray(path.read_bytes())).calling_convention_version
    return {
        "format": f"StableHLO, jax.export calling convention {version}",
        "reads": f"jax {jax.__version__} and newer, six months of releases",
        "promised_until": (today + PROMISED).isoformat(),
    }


def _onnx(path: epath.Path) -> dict[str, str]:
    onnx = importlib.import_module("onnx")
    model = onnx.load(os.fspath(path), load_external_data=False)
    (opset,) = (found.version for found in model.opset_import if found.domain in ("", "ai.onnx"))
    return {
        "format": f"ONNX opset {opset}, IR version {model.ir_version}",
        "reads": _metadata(model).get("kdjax.reads", "an ONNX Runtime of that opset or newer"),
    }


def _metadata(model: Any) -> dict[str, str]:
    return {entry.key: entry.value for entry in model.metadata_props}


def _litert(path: epath.Path) -> dict[str, str]:
    schema: Any = importlib.import_module("litert_converter.schema_py_generated")
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(path.read_bytes(), 0))
    named: Mapping[str, int] = {
        bytes(entry.name).decode(): entry.buffer for entry in model.metadata or ()
    }
    oldest = ""
    if "min_runtime_version" in named:
        stored = model.buffers[named["min_runtime_version"]].data
        oldest = bytes(np.asarray(stored, np.uint8)).split(b"\0", 1)[0].decode()
    return {
        "format": f"LiteRT schema {model.version}",
        "reads": f"runtime {oldest} or newer" if oldest else "a runtime of all its operators",
    }
