"""Two teachers of different networks and random parameters, kept apart: one hands over to the other.

Each has a term of its own (You et al. 2017, "Learning from Multiple Teacher Networks", KDD, give such
terms equal weights); here the weight moves from the shallower teacher to the deeper one while the student
trains.

  kdjax --config=configs/kd/teachers.py:seeds=5 --workdir=DIR
"""

from kd_digits import Digits


def get_config(arg: str | None = None):
    line = Digits(arg)
    shallow = dict(name="cnn", widths=line.widths[0][1:])
    line.stages = dict(
        line.stages,
        pretrain_shallow=dict(line.stages["pretrain"], encoder=shallow),
        teacher_shallow=dict(line.stages["teacher"], start_from="pretrain_shallow"),
        cache=dict(line.stages["cache"], teacher=["teacher", "teacher_shallow"], together="apart"),
    )
    weights = [dict(begin=0.25, end=0.75), dict(begin=0.75, end=0.25)]
    return line.config("teachers", student=line.learner(teacher_weights=weights))
