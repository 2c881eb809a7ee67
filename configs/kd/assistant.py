"""A teacher assistant: a network between teacher and student learns from the one and teaches the other.

Mirzadeh et al. 2019, https://arxiv.org/abs/1902.03393.

  kdjax --config=configs/kd/assistant.py:seeds=5 --workdir=DIR
"""

from kd_digits import Digits


def get_config(arg: str | None = None):
    line = Digits(arg)
    widths = [(large + small) // 2 for large, small in zip(*line.widths, strict=True)]
    between = dict(name="cnn", widths=widths)
    return line.config(
        "assistant",
        assistant=dict(line.distilled, encoder=between),
        assistant_cache=dict(line.stages["cache"], teacher="assistant"),
        student=line.learner(cache="assistant_cache"),
    )
