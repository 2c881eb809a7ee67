"""Correlation congruence: a Gaussian kernel between the examples of a batch.

Peng et al. 2019, https://arxiv.org/abs/1904.01802.

  kdjax --config=configs/kd/correlation.py:seeds=5 --workdir=DIR
"""

from kd_digits import student, with_features


def get_config(arg: str | None = None):
    return student("correlation", arg, **with_features(correlation=dict(name="correlation")))
