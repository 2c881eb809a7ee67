"""What a student learns of its teacher: terms of logits and of features, without a config."""

from kdjax.distill.feature_terms import (
    Comparison,
    Shapes,
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
from kdjax.distill.logit_terms import Compare, LogitLoss, Scalar, ce_term, kd_term

__all__ = [
    "Compare",
    "Comparison",
    "LogitLoss",
    "Scalar",
    "Shapes",
    "attention",
    "behind_relu",
    "ce_term",
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
