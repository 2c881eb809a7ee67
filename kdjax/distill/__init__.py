"""What a student learns of its teacher: terms of logits and of features, without a config."""

from kdjax.distill.feature_terms import (
    Comparison,
    Shapes,
    Taps,
    attention,
    behind_relu,
    correlation,
    crd,
    fsp,
    hint,
    nst,
    ofd,
    pkt,
    review,
    rkd,
    similarity,
    vid,
)
from kdjax.distill.logit_terms import Compare, LogitLoss, Scalar, kd_term

__all__ = [
    "Compare",
    "Comparison",
    "LogitLoss",
    "Scalar",
    "Shapes",
    "Taps",
    "attention",
    "behind_relu",
    "correlation",
    "crd",
    "fsp",
    "hint",
    "kd_term",
    "nst",
    "ofd",
    "pkt",
    "review",
    "rkd",
    "similarity",
    "vid",
]
