"""Ways to distil the digits at one budget: one teacher, one student network, 400 steps of 256 views each.

`scratch` learns the 50 labels alone. Every other row learns all images from the same teacher on the same
views; those with features ask it in the step and have the terms of `kd` besides. What is their own is
that of the config of their name in this folder.

  kdjax --config=configs/kd/table.py:seeds=5 --workdir=DIR
"""

import crd
import dist
import dkd
import fitnet
import kd
import review
import rkd
import standardized
from kd_digits import Digits

METHODS = dict(
    kd=kd,
    dkd=dkd,
    dist=dist,
    standardized=standardized,
    fitnet=fitnet,
    rkd=rkd,
    crd=crd,
    review=review,
)


def get_config(arg: str | None = None):
    line = Digits(arg)
    scratch = dict(kind="finetune", encoder=line.student, views=line.views, **line.training)
    students = {
        name: method.get_config(arg).to_dict()["stages"]["student"]
        for name, method in METHODS.items()
    }
    return line.config("table", scratch=scratch, **students)
