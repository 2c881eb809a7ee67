"""What a model is worth: its scores, how long it takes and how much it computes."""

from kdjax.evaluate.classification import (
    Agreement,
    Scores,
    agreement,
    confusion,
    logits_over,
    scores,
)
from kdjax.evaluate.flops import flops
from kdjax.evaluate.latency import Latency, interleaved, latency, onnx_call

__all__ = [
    "Agreement",
    "Latency",
    "Scores",
    "agreement",
    "confusion",
    "flops",
    "interleaved",
    "latency",
    "logits_over",
    "onnx_call",
    "scores",
]
