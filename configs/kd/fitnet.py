"""FitNets: a learned regressor brings the student's third block to the teacher's.

Romero et al. 2014, https://arxiv.org/abs/1412.6550.

  kdjax --config=configs/kd/fitnet.py:seeds=5 --workdir=DIR
"""

from kd_digits import BLOCKS, student, with_features


def get_config(arg: str | None = None):
    return student(
        "fitnet", arg, **with_features(hint=dict(name="hint", taps=BLOCKS[2:3], relu=True))
    )
