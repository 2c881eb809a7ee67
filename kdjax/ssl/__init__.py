"""Self-supervised methods: each a forward pass, its terms, and what it keeps between steps."""

from kdjax.ssl.clusters import dino, swav
from kdjax.ssl.contrast import both_views, dcl, moco_v2, moco_v3, simclr
from kdjax.ssl.k_means import KMeans, k_means
from kdjax.ssl.masked_frames import Clusters, at_frames, frames_of, masked_frames
from kdjax.ssl.masked_lm import masked_lm
from kdjax.ssl.method import Method, Trained, live, watch_spread
from kdjax.ssl.predict import byol, predictions, simsiam
from kdjax.ssl.pretext import mae, rotation
from kdjax.ssl.probe import APART, with_probe
from kdjax.ssl.redundancy import barlow_twins, one_by_one, vicreg

__all__ = [
    "APART",
    "Clusters",
    "KMeans",
    "Method",
    "Trained",
    "at_frames",
    "barlow_twins",
    "both_views",
    "byol",
    "dcl",
    "dino",
    "frames_of",
    "k_means",
    "live",
    "mae",
    "masked_frames",
    "masked_lm",
    "moco_v2",
    "moco_v3",
    "one_by_one",
    "predictions",
    "rotation",
    "simclr",
    "simsiam",
    "swav",
    "vicreg",
    "watch_spread",
    "with_probe",
]
