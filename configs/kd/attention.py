"""Attention transfer: where the blocks are active.

Zagoruyko and Komodakis 2016, https://arxiv.org/abs/1612.03928.

  kdjax --config=configs/kd/attention.py:seeds=5 --workdir=DIR
"""

from kd_digits import BLOCKS, student, with_features


def get_config(arg: str | None = None):
    return student(
        "attention",
        arg,
        **with_features(attention=dict(name="attention", taps=BLOCKS[1:], relu=True)),
    )
