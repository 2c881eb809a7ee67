"""Contrastive representation distillation, against 256 other examples from a memory.

Tian et al. 2019, https://arxiv.org/abs/1910.10699.

  kdjax --config=configs/kd/crd.py:seeds=5 --workdir=DIR
"""

from kd_digits import student, with_features


def get_config(arg: str | None = None):
    return student("crd", arg, **with_features(crd=dict(name="crd", negatives=256)))
