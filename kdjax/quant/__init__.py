"""Models in few numbers: rules by name, calibration, training with rounding in it, integer files.

A model is quantized as its jaxpr shows it, so its code does not change, and what is trained and measured
is what the file computes.
"""

from kdjax.quant.calibrate import Method, calibrate
from kdjax.quant.composites import with_composites
from kdjax.quant.differences import differences
from kdjax.quant.layers import Graph, Layer, graph_of
from kdjax.quant.model import RANGES, Quantized
from kdjax.quant.numbers import (
    BITS,
    LEVELS,
    Weights,
    fake_activation,
    fake_weights,
    quantize_weights,
    scale_of,
)
from kdjax.quant.onnx_file import Plan, plan_of, write_quantized
from kdjax.quant.rules import Rule, WeightType, choose

__all__ = [
    "BITS",
    "LEVELS",
    "RANGES",
    "Graph",
    "Layer",
    "Method",
    "Plan",
    "Quantized",
    "Rule",
    "WeightType",
    "Weights",
    "calibrate",
    "choose",
    "differences",
    "fake_activation",
    "fake_weights",
    "graph_of",
    "plan_of",
    "quantize_weights",
    "scale_of",
    "with_composites",
    "write_quantized",
]
