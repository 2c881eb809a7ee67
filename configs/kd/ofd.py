"""The overhaul of feature distillation: what comes before a ReLU, down to a margin below zero.

Heo et al. 2019, https://arxiv.org/abs/1904.01866.

  kdjax --config=configs/kd/ofd.py:seeds=5 --workdir=DIR
"""

from kd_digits import BLOCKS, student, with_features


def get_config(arg: str | None = None):
    return student("ofd", arg, **with_features(ofd=dict(name="ofd", taps=BLOCKS)))
