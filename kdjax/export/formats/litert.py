"""LiteRT (a .tflite file), run on the CPU; the writer is in `kdjax.export.litert`."""

import dataclasses
import importlib
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from kdjax import quant
from kdjax.export import integers, litert, litert_integers
from kdjax.export.formats import Known
from kdjax.export.litert_call import litert_call
from kdjax.export.model import Model
from kdjax.types import BadFile

_PRODUCTS = ("BATCH_MATMUL", "CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")


@dataclasses.dataclass(frozen=True, kw_only=True)
class LiteRT(Known):
    """A .tflite file of one example, of a quantized model with its integers."""

    name: Literal["litert"] = "litert"

    suffix: ClassVar[str] = ".tflite"
    open_batch: ClassVar[bool] = False
    integers: ClassVar[bool] = True
    needs: ClassVar[tuple[str, ...]] = litert.NEEDS
    extra: ClassVar[str | None] = "litert"
    package: ClassVar[str | None] = "ai-edge-litert"
    program: ClassVar[str | None] = "litert_memory.py"

    @property
    def runs_in(self) -> str:
        """LiteRT."""
        return "litert:cpu"

    def misfits(
        self,
        rules: Mapping[str, quant.Rule],
        layers: Callable[[], Sequence[quant.Layer]],
        *,
        model: str,
    ) -> Iterator[str]:
        """What goes in is rounded as it is."""
        if found := [name for name, rule in rules.items() if rule.smooth is not None]:
            yield (
                f"LiteRT rounds what goes into {found[0]} ({len(found)} in all) undivided; export "
                f"onnx, or quantize {model} without smooth"
            )

    def write(self, model: Model, path: str | os.PathLike[str]) -> None:
        """See `write_litert`; what the call quantizes is put in afterwards."""
        taken = {"inputs": model.inputs.fields, "output": model.output}
        if not model.rules:
            litert.write_litert(model.predict, path, **taken)
            return
        rounds, plan = model.with_composites, model.plan
        with tempfile.TemporaryDirectory() as scratch:
            made = Path(scratch) / "model.tflite"
            litert.write_litert(rounds, made, **taken)
            litert_integers.quantize_in_the_call(made, plan)
            content = made.read_bytes()
        integers.require_integers(integers.litert_faults(content, plan), "LiteRT")
        with open(path, "wb") as file:
            file.write(content)

    def load(self, path: str | os.PathLike[str], *, threads: int) -> Callable[..., Any]:
        """See `load_litert`."""
        return litert.load_litert(path, threads=threads)

    def facts(self, path: str | os.PathLike[str]) -> dict[str, str]:
        """LiteRT promises to read older files without an end."""
        schema: Any = importlib.import_module("litert_converter.schema_py_generated")
        content = Path(path).read_bytes()
        model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
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

    def call(
        self,
        path: str | os.PathLike[str],
        *,
        threads: int,
        batch: int,
        length: int | None = None,
    ) -> Callable[[], Any]:
        """See `kdjax.export.litert_call`.

        Raises:
          BadInput: a length is asked for, which is fixed; or see there.
        """
        if length is not None:
            raise BadFile(os.fspath(path), "a .tflite file takes one length", "leave --length out")
        return litert_call(path, threads=threads, batch=batch)

    def seen(self, path: str | os.PathLike[str], arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """What goes into each product with a constant; the file is of one example."""
        runtime: Any = importlib.import_module("ai_edge_litert.interpreter")
        interpreter = runtime.Interpreter(
            os.fspath(path),
            experimental_preserve_all_tensors=True,
            experimental_op_resolver_type=runtime.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        )
        interpreter.allocate_tensors()
        given = [value["index"] for value in interpreter.get_input_details()]
        operators, makers = [], {}
        for operator in interpreter._get_ops_details():
            kind, inputs = operator["op_name"], [int(index) for index in operator["inputs"]]
            operators.append((kind, inputs))
            makers |= {int(index): (kind, inputs) for index in operator["outputs"]}

        def is_constant(index: int) -> bool:
            if index not in makers:
                return index not in given
            kind, inputs = makers[index]
            return kind == "DEQUANTIZE" and is_constant(inputs[0])

        def unpadded(index: int) -> int:
            kind, inputs = makers.get(index, ("", []))
            return inputs[0] if kind.startswith("PAD") else index

        read = [
            unpadded(inputs[0])
            for kind, inputs in operators
            if kind in _PRODUCTS and is_constant(inputs[1])
        ]
        details = {value["index"]: value for value in interpreter.get_tensor_details()}

        def exact(index: int) -> np.ndarray:
            value, (scale, zero) = interpreter.get_tensor(index), details[index]["quantization"]
            return (value.astype(np.float32) - zero) * scale if scale else value

        rows = []
        for i in range(len(arrays[0])):
            for index, array in zip(given, arrays, strict=True):
                interpreter.set_tensor(index, array[i : i + 1])
            interpreter.invoke()
            rows.append([exact(index) for index in read])
        return [np.stack(values) for values in zip(*rows, strict=True)]
