"""Models in few numbers: rules by name, calibration, training with rounding in it, integer files.

A model is quantized as its jaxpr shows it, so its code does not change, and what is trained and measured
is what the file computes.
"""

from kdjax.quant.allocation import allocate
from kdjax.quant.calibrate import Method, calibrate, check_percentile, constant
from kdjax.quant.choices import Choice, Choices
from kdjax.quant.composites import with_composites
from kdjax.quant.differences import differences
from kdjax.quant.graph import Graph, Layer
from kdjax.quant.integers import litert_faults, onnx_faults, require_integers
from kdjax.quant.layers import graph_of
from kdjax.quant.litert_file import quantize_in_the_call
from kdjax.quant.model import RANGES, Quantized, run
from kdjax.quant.numbers import (
    BITS,
    LEVELS,
    Weights,
    fake_activation,
    fake_dynamic,
    fake_weights,
    quantize_weights,
    scale_of,
)
from kdjax.quant.onnx_file import write_quantized
from kdjax.quant.plan import Plan, Stored, plan_of
from kdjax.quant.rules import ActivationType, Rule, WeightType, choose, static

__all__ = [
    "BITS",
    "LEVELS",
    "RANGES",
    "ActivationType",
    "Choice",
    "Choices",
    "Graph",
    "Layer",
    "Method",
    "Plan",
    "Quantized",
    "Rule",
    "Stored",
    "WeightType",
    "Weights",
    "allocate",
    "calibrate",
    "check_percentile",
    "choose",
    "constant",
    "differences",
    "fake_activation",
    "fake_dynamic",
    "fake_weights",
    "graph_of",
    "litert_faults",
    "onnx_faults",
    "plan_of",
    "quantize_in_the_call",
    "quantize_weights",
    "require_integers",
    "run",
    "scale_of",
    "static",
    "with_composites",
    "write_quantized",
]
