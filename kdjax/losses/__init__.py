"""Pure losses: arrays first, hyper-parameters by keyword, per example, float32 inside.

By what they compare: labels (`classification`, `binary`, `transcripts`), one's own predictions
(`self_training`); views of an example (`contrastive`, `predictive`, `redundancy`, `clusters`); a student
with a teacher in logits (`distillation`, `logit_relations`), in embeddings (`embeddings`, `crd`) and in
features (`features`, `overhaul`, `review`, `relations`; `sequences` of transformers).
`queue` is the state that some of them read; `rows` and `pooling` are what they share.
"""

from kdjax.losses.binary import binary_cross_entropy, binary_kl
from kdjax.losses.classification import cross_entropy, tf_kd
from kdjax.losses.clusters import dino, dino_center, sinkhorn, swav
from kdjax.losses.contrastive import dcl, info_nce, moco_v3, nt_xent
from kdjax.losses.crd import CRDState, crd, crd_state
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
from kdjax.losses.features import attention_transfer, fsp, hint_mse, nst, vid
from kdjax.losses.logit_relations import batch_level_kd, class_level_kd, dist, multi_level_kd
from kdjax.losses.overhaul import ofd, ofd_margin
from kdjax.losses.pooling import adaptive_average_pool
from kdjax.losses.predictive import byol, masked_patch_mse, negative_cosine
from kdjax.losses.queue import enqueue, random_queue
from kdjax.losses.redundancy import barlow_twins, vicreg
from kdjax.losses.relations import (
    correlation_congruence,
    pkt,
    rkd_angle,
    rkd_distance,
    similarity_preserving,
)
from kdjax.losses.review import review_hcl
from kdjax.losses.self_training import SoftMatchState, soft_match, soft_match_state
from kdjax.losses.sequences import (
    attention_mse,
    distilhubert,
    hidden_cosine,
    hidden_mse,
    pkd,
    relation_kl,
)
from kdjax.losses.transcripts import BLANK, best_path, ctc, least_frames, near_symbols

__all__ = [
    "BLANK",
    "CRDState",
    "SoftMatchState",
    "adaptive_average_pool",
    "attention_mse",
    "attention_transfer",
    "barlow_twins",
    "batch_level_kd",
    "best_path",
    "binary_cross_entropy",
    "binary_kl",
    "byol",
    "class_level_kd",
    "compress",
    "correlation_congruence",
    "crd",
    "crd_state",
    "cross_entropy",
    "ctc",
    "dcl",
    "dino",
    "dino_center",
    "dist",
    "distilhubert",
    "dkd",
    "embedding_cosine",
    "embedding_mse",
    "enqueue",
    "fsp",
    "hidden_cosine",
    "hidden_mse",
    "hint_mse",
    "info_nce",
    "kd_ce",
    "kd_kl",
    "kd_kl_top_k",
    "kd_mse",
    "least_frames",
    "masked_patch_mse",
    "moco_v3",
    "multi_level_kd",
    "near_symbols",
    "negative_cosine",
    "nst",
    "nt_xent",
    "ofd",
    "ofd_margin",
    "pkd",
    "pkt",
    "random_queue",
    "relation_kl",
    "review_hcl",
    "rkd_angle",
    "rkd_distance",
    "seed",
    "similarity_preserving",
    "sinkhorn",
    "soft_match",
    "soft_match_state",
    "standardize",
    "swav",
    "tf_kd",
    "top_k_signal",
    "vicreg",
    "vid",
]
