"""Models in few numbers: rules by name, calibration, training with rounding in it.

A model is quantized as its jaxpr shows it, so its code does not change, and what is trained and measured
is what the file computes.
"""

from kdjax.quant.allocation import allocate
from kdjax.quant.calibrate import Method, calibrate, check_percentile, constant
from kdjax.quant.choices import Choice, Choices
from kdjax.quant.fake_quant import (
    BITS,
    LEVELS,
    TOP,
    Weights,
    fake_activation,
    fake_dynamic,
    fake_weights,
    quantize_weights,
    scale_of,
)
from kdjax.quant.graph import Graph, Layer
from kdjax.quant.layers import graph_of
from kdjax.quant.model import RANGES, SMOOTH, Quantized, along, run
from kdjax.quant.plan import Added, Plan, Stored, Times, plan_of, stored
from kdjax.quant.rules import ActivationType, Rule, WeightType, choose, static

__all__ = [
    "BITS",
    "LEVELS",
    "RANGES",
    "SMOOTH",
    "TOP",
    "ActivationType",
    "Added",
    "Choice",
    "Choices",
    "Graph",
    "Layer",
    "Method",
    "Plan",
    "Quantized",
    "Rule",
    "Stored",
    "Times",
    "WeightType",
    "Weights",
    "allocate",
    "along",
    "calibrate",
    "check_percentile",
    "choose",
    "constant",
    "fake_activation",
    "fake_dynamic",
    "fake_weights",
    "graph_of",
    "plan_of",
    "quantize_weights",
    "run",
    "scale_of",
    "static",
    "stored",
]
