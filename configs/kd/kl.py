"""Knowledge distillation: the KL of softened softmaxes.

Hinton et al. 2015, https://arxiv.org/abs/1503.02531.

  kdjax --config=configs/kd/kl.py:seeds=5 --workdir=DIR
"""

from kd_digits import student


def get_config(arg: str | None = None):
    return student("kd", arg)
