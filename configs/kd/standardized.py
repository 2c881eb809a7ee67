"""Logit standardization: both sides' logits have mean 0 and deviation 1 before they are compared.

Sun et al. 2024, https://arxiv.org/abs/2403.01427.

  kdjax --config=configs/kd/standardized.py:seeds=5 --workdir=DIR
"""

from kd_digits import student


def get_config(arg: str | None = None):
    return student("standardized", arg, standardize=True, kd_weight=9.0)
