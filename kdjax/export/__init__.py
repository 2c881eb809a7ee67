"""Files that run without kdjax: what the data has goes in, raw, and nothing is left to get wrong."""

from kdjax.export.facts import facts
from kdjax.export.litert import load_litert, require_litert, write_litert
from kdjax.export.onnx_file import load_onnx, require_onnx, write_onnx
from kdjax.export.stablehlo import load_stablehlo, write_stablehlo

__all__ = [
    "facts",
    "load_litert",
    "load_onnx",
    "load_stablehlo",
    "require_litert",
    "require_onnx",
    "write_litert",
    "write_onnx",
    "write_stablehlo",
]
