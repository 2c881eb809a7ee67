"""Probabilistic knowledge transfer: which examples of a batch are each other's neighbours.

Passalis and Tefas 2018, https://arxiv.org/abs/1803.10837.

  kdjax --config=configs/kd/pkt.py:seeds=5 --workdir=DIR
"""

from kd_digits import student, with_features


def get_config(arg: str | None = None):
    return student("pkt", arg, **with_features(pkt=dict(name="pkt")))
