"""What makes a model's numbers smaller."""

from kdjax.quant.static import quantize_onnx

__all__ = ["quantize_onnx"]
