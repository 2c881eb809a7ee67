"""Relational knowledge distillation: distances and angles between the examples of a batch.

Park et al. 2019, https://arxiv.org/abs/1904.05068. The angles are those of all triples, 17 million for
256 examples, which take most of the time on a CPU.

  kdjax --config=configs/kd/rkd.py:seeds=5 --workdir=DIR
"""

from kd_digits import student, with_features


def get_config(arg: str | None = None):
    return student("rkd", arg, **with_features(rkd=dict(name="rkd")))
