"""CompRess on the digits: student and teacher each compare an example with a queue of their own.

Abbasi Koohpayegani et al. 2020, https://arxiv.org/abs/2010.14713. The line is that of
`embedding_digits.py`; the queues hold four batches, most of the 1,437 images.

  kdjax --config=configs/kd/compress.py:seeds=1 --workdir=DIR
  kdjax --config=configs/kd/compress.py:tune --workdir=DIR
"""

from embedding_digits import line
from ml_collections import ConfigDict


def get_config(arg: str | None = None) -> ConfigDict:
    method = dict(name="compress", queue=1024, temperature=0.04)
    return line(arg, name="compress", method=method)
