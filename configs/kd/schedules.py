"""Numbers that change while a student trains: a temperature that falls, and weights that cross.

The falling temperature is that of annealing (Jafari et al. 2021, https://arxiv.org/abs/2104.07163, with
another loss); the few labels gain weight as the teacher's answers get sharper.

  kdjax --config=configs/kd/schedules.py:seeds=5 --workdir=DIR
"""

from kd_digits import student


def get_config(arg: str | None = None):
    return student(
        "schedules",
        arg,
        temperature=dict(begin=4.0, end=1.0),
        kd_weight=dict(begin=1.0, end=0.8, shape="cosine"),
        ce_weight=dict(begin=0.0, end=0.2, shape="cosine"),
    )
