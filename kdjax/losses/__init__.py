"""Pure losses: arrays first, hyper-parameters by keyword, per example, float32 inside."""

from kdjax.losses.classification import cross_entropy
from kdjax.losses.contrastive import nt_xent
from kdjax.losses.distillation import embedding_cosine, kd_kl, kd_kl_top_k, top_k_signal

__all__ = ["cross_entropy", "embedding_cosine", "kd_kl", "kd_kl_top_k", "nt_xent", "top_k_signal"]
