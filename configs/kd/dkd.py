"""Decoupled knowledge distillation: where there is no label, the teacher's class is the target.

Zhao et al. 2022, https://arxiv.org/abs/2203.08679.

  kdjax --config=configs/kd/dkd.py:seeds=5 --workdir=DIR
"""

from kd_digits import student


def get_config(arg: str | None = None):
    return student("dkd", arg, logits=dict(name="dkd", alpha=1.0, beta=8.0, target="teacher"))
