"""What a model is worth: its scores, how long it takes and how much it computes."""

from kdjax.evaluate.classification import (
    Agreement,
    Scores,
    agreement,
    confusion,
    logits_over,
    scores,
)
from kdjax.evaluate.flops import equation_flops, flops
from kdjax.evaluate.latency import (
    Latency,
    interleaved,
    latency,
    litert_call,
    onnx_call,
    peak_memory,
)

__all__ = [
    "Agreement",
    "Latency",
    "Scores",
    "agreement",
    "confusion",
    "equation_flops",
    "flops",
    "interleaved",
    "latency",
    "litert_call",
    "logits_over",
    "onnx_call",
    "peak_memory",
    "scores",
]
