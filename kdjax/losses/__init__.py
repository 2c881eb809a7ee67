"""Pure losses: arrays first, hyper-parameters by keyword, per example, float32 inside."""

from kdjax.losses.classification import cross_entropy, tf_kd
from kdjax.losses.clusters import dino, dino_center, sinkhorn, swav
from kdjax.losses.contrastive import dcl, info_nce, moco_v3, nt_xent
from kdjax.losses.distillation import (
    dkd,
    kd_ce,
    kd_kl,
    kd_kl_top_k,
    kd_mse,
    standardize,
    top_k_signal,
)
from kdjax.losses.embeddings import compress, embedding_cosine, embedding_mse, seed
from kdjax.losses.logit_relations import batch_level_kd, class_level_kd, dist, multi_level_kd
from kdjax.losses.predictive import byol, masked_patch_mse, negative_cosine
from kdjax.losses.queue import enqueue
from kdjax.losses.redundancy import barlow_twins, vicreg

__all__ = [
    "barlow_twins",
    "batch_level_kd",
    "byol",
    "class_level_kd",
    "compress",
    "cross_entropy",
    "dcl",
    "dino",
    "dino_center",
    "dist",
    "dkd",
    "embedding_cosine",
    "embedding_mse",
    "enqueue",
    "info_nce",
    "kd_ce",
    "kd_kl",
    "kd_kl_top_k",
    "kd_mse",
    "masked_patch_mse",
    "moco_v3",
    "multi_level_kd",
    "negative_cosine",
    "nt_xent",
    "seed",
    "sinkhorn",
    "standardize",
    "swav",
    "tf_kd",
    "top_k_signal",
    "vicreg",
]
