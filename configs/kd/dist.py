"""DIST: correlations of the probabilities, within an example and within a class.

Huang et al. 2022, https://arxiv.org/abs/2205.10536.

  kdjax --config=configs/kd/dist.py:seeds=5 --workdir=DIR
"""

from kd_digits import student


def get_config(arg: str | None = None):
    return student("dist", arg, logits=dict(name="dist"), kd_weight=2.0)
