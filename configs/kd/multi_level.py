"""Multi-level logit distillation: of examples, of the batch and of classes, at five temperatures.

Jin et al. 2023, Multi-Level Logit Distillation, CVPR.

  kdjax --config=configs/kd/multi_level.py:seeds=5 --workdir=DIR
"""

from kd_digits import Digits


def get_config(arg: str | None = None):
    line = Digits(arg)
    del line.distilled["temperature"]  # `logits` has its own
    return line.config("multi_level", student=line.learner(logits=dict(name="multi_level")))
