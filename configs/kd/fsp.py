"""The flow between two blocks, which have as many channels in student and teacher: FSP.

Yim et al. 2017, "A Gift from Knowledge Distillation", CVPR. The student's first two blocks are as wide as
the teacher's, and it has one block fewer: 57 thousand parameters.

  kdjax --config=configs/kd/fsp.py:seeds=5 --workdir=DIR
"""

from kd_digits import BLOCKS, Digits, with_features


def get_config(arg: str | None = None):
    line = Digits(arg)
    first, second = line.widths[0][:2]
    encoder = dict(name="cnn", widths=[first, second, second])
    own = with_features(fsp=dict(name="fsp", taps=BLOCKS[:2], relu=True))
    return line.config("fsp", student=line.learner(**{**own, "encoder": encoder}))
