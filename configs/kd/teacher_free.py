"""Teacher-free distillation on the digits: a virtual teacher made of the label.

Yuan et al. 2020, https://arxiv.org/abs/1909.11723 (Tf-KD_reg). A small network on all 1,437 training
images with the cross-entropy alone, with smoothed labels, and with the virtual teacher.

  kdjax --config=configs/kd/teacher_free.py:seeds=5 --workdir=DIR
"""

from kd_digits import Digits
from ml_collections import ConfigDict


def get_config(arg: str | None = None) -> ConfigDict:
    base = Digits(arg)
    scratch = dict(base.scratch, labels_share=1.0)
    return base.config_of(
        "teacher_free",
        dict(
            scratch=scratch,
            smoothed=dict(scratch, label_smoothing=0.1),
            teacher_free=dict(
                scratch, teacher_free=dict(correct_probability=0.99, temperature=20.0)
            ),
        ),
    )
