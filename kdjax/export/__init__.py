"""Files that run without kdjax: raw uint8 images in, logits out, nothing left to get wrong."""

from kdjax.export.onnx_file import load_onnx, write_onnx
from kdjax.export.stablehlo import load_stablehlo, write_stablehlo

__all__ = ["load_onnx", "load_stablehlo", "write_onnx", "write_stablehlo"]
