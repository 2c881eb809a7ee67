"""SEED on the digits: the student's similarities to a queue of the teacher's embeddings.

Fang et al. 2021, https://arxiv.org/abs/2101.04731. The line is that of `embedding_digits.py`; the queue
holds eight batches, most of the 1,437 images.

  kdjax --config=configs/kd/seed.py:seeds=5 --workdir=DIR
"""

from embedding_digits import line
from ml_collections import ConfigDict

METHOD = dict(name="seed", queue=1024, student_temperature=0.2, teacher_temperature=0.01)


def get_config(arg: str | None = None) -> ConfigDict:
    return line(arg, name="seed", method=METHOD)
