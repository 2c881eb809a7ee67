"""Neuron selectivity transfer: the distribution of the channels of the last block.

Huang and Wang 2017, https://arxiv.org/abs/1707.01219.

  kdjax --config=configs/kd/nst.py:seeds=5 --workdir=DIR
"""

from kd_digits import BLOCKS, student, with_features


def get_config(arg: str | None = None):
    return student("nst", arg, **with_features(nst=dict(name="nst", taps=BLOCKS[3:], relu=True)))
