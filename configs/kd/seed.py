"""SEED on the embedded handwritten digits: how near the student is to a queue of the teacher's rows.

Fang et al. 2021, https://arxiv.org/abs/2101.04731. The line is that of `embedding_digits.py`; the queue
holds four batches, most of the 1,437 images.

  kdjax --config=configs/kd/seed.py:seeds=1 --workdir=DIR
  kdjax --config=configs/kd/seed.py:tune --workdir=DIR
"""

from embedding_digits import line
from ml_collections import ConfigDict


def get_config(arg: str | None = None) -> ConfigDict:
    method = dict(name="seed", queue=1024, student_temperature=0.2, teacher_temperature=0.01)
    return line(arg, name="seed", method=method)
