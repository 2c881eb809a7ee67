"""Pure losses: arrays first, hyper-parameters by keyword, per example, float32 inside."""

from kdjax.losses.classification import cross_entropy
from kdjax.losses.contrastive import nt_xent
from kdjax.losses.distillation import kd_kl

__all__ = ["cross_entropy", "kd_kl", "nt_xent"]
