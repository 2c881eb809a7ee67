"""Wall-clock latency. `python -m kdjax.evaluate.latency MODEL.onnx` times a file."""

from kdjax.evaluate.latency.onnx_file import onnx_call
from kdjax.evaluate.latency.timing import Latency, interleaved, latency

__all__ = ["Latency", "interleaved", "latency", "onnx_call"]
