"""Similarity-preserving distillation: which examples of a batch have similar features.

Tung and Mori 2019, https://arxiv.org/abs/1907.09682.

  kdjax --config=configs/kd/similarity.py:seeds=5 --workdir=DIR
"""

from kd_digits import student, with_features


def get_config(arg: str | None = None):
    return student("similarity", arg, **with_features(similarity=dict(name="similarity")))
