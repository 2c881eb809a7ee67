"""Ways to distil the digits at one budget: one teacher, one student network, 400 steps of 128 views each.

`scratch` learns the 50 labels alone. Every other row learns from the same teacher on the same views of
all images; those with features ask it in the step, and keep the terms of `kd`. Only `seed` learns no
logits: its encoder learns the embedding of the pretrained one, and is then fine-tuned on the 50 labels as
the teacher is. Each method is set up as in the config of its name in this folder.

  kdjax --config=configs/kd/table.py --workdir=DIR
"""

import crd
import dist
import dkd
import fitnet
import kl
import review
import rkd
import seed
import standardized
from embedding_digits import learned
from kd_digits import Digits

METHODS = dict(
    kd=kl,
    dkd=dkd,
    dist=dist,
    standardized=standardized,
    fitnet=fitnet,
    rkd=rkd,
    crd=crd,
    review=review,
)


def get_config(arg: str | None = None):
    line = Digits(arg, seeds=5)
    students = {
        name: method.get_config(arg).to_dict()["stages"]["student"]
        for name, method in METHODS.items()
    }
    by_embedding = learned(line, seed.METHOD, student="seed")
    return line.config("kd_table", scratch=line.scratch, **students, **by_embedding)
