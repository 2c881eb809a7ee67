"""Variational information distillation: a learned Gaussian of the teacher's blocks.

Ahn et al. 2019, https://arxiv.org/abs/1904.05835.

  kdjax --config=configs/kd/vid.py:seeds=5 --workdir=DIR
"""

from kd_digits import BLOCKS, student, with_features


def get_config(arg: str | None = None):
    return student("vid", arg, **with_features(vid=dict(name="vid", taps=BLOCKS[1:], relu=True)))
