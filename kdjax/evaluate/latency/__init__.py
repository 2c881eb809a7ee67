"""Wall-clock latency and memory of a call; `kdjax latency MODEL` times a file."""

from kdjax.evaluate.latency.litert_file import litert_call
from kdjax.evaluate.latency.memory import peak_memory
from kdjax.evaluate.latency.onnx_file import onnx_call
from kdjax.evaluate.latency.timing import Latency, interleaved, latency

__all__ = ["Latency", "interleaved", "latency", "litert_call", "onnx_call", "peak_memory"]
