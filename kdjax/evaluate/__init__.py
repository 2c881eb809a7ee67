"""What a model is worth: its scores and features, how long it takes and how much it computes."""

from kdjax.evaluate.agreement import Agreement, compared, cosines, differences, r2
from kdjax.evaluate.bags import Bags, Sequences, tfidf
from kdjax.evaluate.classification import (
    Scores,
    agreement,
    confusion,
    logits_over,
    scores,
)
from kdjax.evaluate.decoding import Hypothesis, greedy, prefix_beam
from kdjax.evaluate.flops import equation_flops, flops
from kdjax.evaluate.neighbours import knn
from kdjax.evaluate.probe import Probe, linear_probe
from kdjax.evaluate.relations import f1, matthews, pearson, spearman
from kdjax.evaluate.representation import alignment, uniformity
from kdjax.evaluate.timing import Latency, interleaved, latency
from kdjax.evaluate.transcripts import Edits, characters, edits, error_rate, words

__all__ = [
    "Agreement",
    "Bags",
    "Edits",
    "Hypothesis",
    "Latency",
    "Probe",
    "Scores",
    "Sequences",
    "agreement",
    "alignment",
    "characters",
    "compared",
    "confusion",
    "cosines",
    "differences",
    "edits",
    "equation_flops",
    "error_rate",
    "f1",
    "flops",
    "greedy",
    "interleaved",
    "knn",
    "latency",
    "linear_probe",
    "logits_over",
    "matthews",
    "pearson",
    "prefix_beam",
    "r2",
    "scores",
    "spearman",
    "tfidf",
    "uniformity",
    "words",
]
