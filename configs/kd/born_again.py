"""Born-again networks: students of the teacher's own architecture, each the teacher of the next.

Furlanello et al. 2018, https://arxiv.org/abs/1805.04770. Two generations; the first learns from the
pretrained and fine-tuned teacher, and both begin from random parameters.

  kdjax --config=configs/kd/born_again.py:seeds=5 --workdir=DIR
"""

from kd_digits import Digits


def get_config(arg: str | None = None):
    line = Digits(arg)
    born = dict(line.distilled, encoder=line.network)
    return line.config(
        "born_again",
        first=born,
        first_cache=dict(line.stages["cache"], teacher="first"),
        second=dict(born, cache="first_cache"),
    )
