"""What a model is worth: its scores and features, how long it takes and how much it computes."""

from kdjax.evaluate.agreement import Agreement, compared, cosines, differences, r2
from kdjax.evaluate.classification import (
    Scores,
    agreement,
    confusion,
    logits_over,
    scores,
)
from kdjax.evaluate.flops import equation_flops, flops
from kdjax.evaluate.neighbours import knn
from kdjax.evaluate.probe import Probe, linear_probe
from kdjax.evaluate.relations import f1, matthews, pearson, spearman
from kdjax.evaluate.representation import alignment, uniformity
from kdjax.evaluate.timing import Latency, interleaved, latency

__all__ = [
    "Agreement",
    "Latency",
    "Probe",
    "Scores",
    "agreement",
    "alignment",
    "compared",
    "confusion",
    "cosines",
    "differences",
    "equation_flops",
    "f1",
    "flops",
    "interleaved",
    "knn",
    "latency",
    "linear_probe",
    "logits_over",
    "matthews",
    "pearson",
    "r2",
    "scores",
    "spearman",
    "uniformity",
]
