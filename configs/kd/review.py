"""Knowledge review: the student's blocks, fused from the deepest up, against the teacher's.

Chen et al. 2021, https://arxiv.org/abs/2104.09044.

  kdjax --config=configs/kd/review.py:seeds=5 --workdir=DIR
"""

from kd_digits import BLOCKS, student, with_features


def get_config(arg: str | None = None):
    return student(
        "review", arg, **with_features(review=dict(name="review", taps=[*BLOCKS, "encoder"]))
    )
