"""ONNX, run by ONNX Runtime on the CPU; the writer is in `kdjax.export.onnx_file`."""

import dataclasses
import importlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from kdjax import alone, quant
from kdjax.export import onnx_file, onnx_integers, onnx_smooth, onnx_stream
from kdjax.export.formats import Known
from kdjax.export.model import Model
from kdjax.export.onnx_call import onnx_call, onnx_seconds
from kdjax.export.onnx_session import open_session

_PRODUCTS = ("Conv", "Gemm", "MatMul", "ConvInteger", "MatMulInteger")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ONNX(Known):
    """A file with all operators that ONNX Runtime knows, of a quantized model with its integers.

    Attributes:
      streaming: it is given an example in pieces, and what was kept of those before, see
        `kdjax.export.stream`; else it is given all of it.
    """

    name: Literal["onnx"] = "onnx"
    streaming: bool = False

    suffix: ClassVar[str] = ".onnx"
    integers: ClassVar[bool] = True
    needs: ClassVar[tuple[str, ...]] = onnx_file.NEEDS
    extra: ClassVar[str | None] = "export"
    package: ClassVar[str | None] = "onnxruntime"
    program: ClassVar[str | None] = "onnx_memory.py"
    channels_first: ClassVar[bool] = True

    @property
    def runs_in(self) -> str:
        """ONNX Runtime."""
        return "onnxruntime:cpu"

    def misfits(
        self,
        rules: Mapping[str, quant.Rule],
        layers: Callable[[], Sequence[quant.Layer]],
        *,
        model: str,
    ) -> Iterator[str]:
        """The one kernel for convolutions in ranges of the call takes several times a float one's."""
        called = [name for name, rule in rules.items() if rule.activations == "dynamic"]
        slow = [layer.name for layer in layers() if layer.convolution] if called else []
        if found := [name for name in called if name in slow]:
            yield (
                f"in ONNX a convolution with dynamic activations ({found[0]}, {len(found)} in all) is "
                "several times slower than in float; export litert alone, or give the convolutions of "
                f"{model} activations='int8'"
            )

    def write(self, model: Model, path: str | os.PathLike[str]) -> None:
        """See `write_onnx` and `write_quantized`; the names of classes go into the metadata, as JSON."""
        self._write(model, path)
        if model.class_names:
            onnx_file.add_metadata(path, "class_names", json.dumps(model.class_names))

    def _write(self, model: Model, path: str | os.PathLike[str]) -> None:
        if self.streaming:
            assert model.stream is not None
            onnx_stream.write_stream(model.stream(), path, output=model.output)
            return
        taken = {"inputs": model.inputs.fields, "output": model.output}
        if not model.rules:
            onnx_file.write_onnx(model.predict, path, **taken)
            return
        with tempfile.TemporaryDirectory() as scratch:
            source = Path(scratch) / "float.onnx"
            plan = model.plan
            onnx_file.write_onnx(model.in_float, source, **taken)
            onnx_integers.write_quantized(source, path, plan)

    def load(self, path: str | os.PathLike[str], *, threads: int) -> Callable[..., Any]:
        """See `load_onnx`, and `load_stream` of a file for pieces."""
        if self.streaming:
            return onnx_stream.load_stream(path, threads=threads)
        return onnx_file.load_onnx(path, threads=threads)

    def facts(self, path: str | os.PathLike[str]) -> dict[str, str]:
        """ONNX promises to read older files without an end."""
        onnx = importlib.import_module("onnx")
        model = onnx.load(os.fspath(path), load_external_data=False)
        said = {entry.key: entry.value for entry in model.metadata_props}
        (opset,) = (one.version for one in model.opset_import if one.domain in ("", "ai.onnx"))
        return {
            "format": f"ONNX opset {opset}, IR version {model.ir_version}",
            "reads": said.get("kdjax.reads", "an ONNX Runtime of that opset or newer"),
        }

    def call(
        self,
        path: str | os.PathLike[str],
        *,
        threads: int,
        batch: int,
        length: int | None = None,
    ) -> Callable[[], Any]:
        """See `kdjax.export.onnx_call`."""
        return onnx_call(path, threads=threads, batch=batch, length=length)

    def seconds(self, path: str | os.PathLike[str], *, length: int | None = None) -> float | None:
        """See `kdjax.export.onnx_call.onnx_seconds`."""
        return onnx_seconds(path, length=length)

    def seen(
        self, path: str | os.PathLike[str], arrays: Sequence[np.ndarray]
    ) -> list[np.ndarray] | None:
        """What goes into each product with a constant; of a file for pieces it is not looked at."""
        if self.streaming:
            return None
        import onnx
        from onnx import helper

        model = onnx.load(path)
        graph = model.graph
        constants = {tensor.name for tensor in graph.initializer}
        constants |= {
            node.output[0]
            for node in graph.node
            if node.op_type in ("Cast", "DequantizeLinear") and node.input[0] in constants
        }
        # What is quantized in the call is looked at before it is.
        exact = {
            node.output[0]: node.input[0]
            for node in graph.node
            if node.op_type == "DynamicQuantizeLinear"
        }
        # And before it is divided for that.
        divided = {
            node.output[0]: node.input[0]
            for node in graph.node
            if node.op_type == "Mul" and onnx_smooth.MARK in node.output[0]
        }
        exact = {name: divided.get(value, value) for name, value in exact.items()}
        names = [
            exact.get(node.input[0], node.input[0])
            for node in graph.node
            if node.op_type in _PRODUCTS and node.input[1] in constants
        ]
        known = {value.name for value in graph.output}
        graph.output.extend(
            helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
            for name in dict.fromkeys(names)
            if name not in known
        )
        session = open_session(model.SerializeToString(), threads=alone.cores(), quiet=True)
        feeds = dict(zip((given.name for given in graph.input), arrays, strict=True))
        return [np.asarray(value) for value in session.run(names, feeds)]
