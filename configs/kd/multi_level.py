"""Multi-level logit distillation: of examples, of the batch and of classes, at five temperatures.

Jin et al. 2023, Multi-Level Logit Distillation, CVPR.

  kdjax --config=configs/kd/multi_level.py:seeds=5 --workdir=DIR
"""

from kd_digits import student


def get_config(arg: str | None = None):
    c = student("multi_level", arg, logits=dict(name="multi_level"))
    del c.stages.student.temperature  # `logits` has its own
    return c
