"""Sentences of different lengths through the line, put together by length.

kdjax --config=tests/ragged_line.py --workdir=DIR
"""

from ml_collections import ConfigDict


def get_config(arg=None):
    assert not arg
    encoder = {"function": "tests.own_inputs:Reader", "width": 16, "rate": 0.1}
    training = {
        "batch": 32,
        "steps": 20,
        "optimizer": {"name": "adamw", "learning_rate": 1e-2},
        "checkpoint_every_steps": 4,
        "log_every_steps": 3,
    }
    plain = {"recipe": "eval"}
    stages = {
        "teacher": {"kind": "finetune", "encoder": encoder, "views": plain, **training},
        "cache": {"kind": "cache", "teacher": "teacher", "recipe": plain, "views": 1},
        "student": {"kind": "distill", "cache": "cache", "encoder": encoder, **training},
    }
    return ConfigDict(
        {
            "name": "ragged",
            "data": {
                "name": "words",
                "source": {"function": "tests.own_inputs:ragged"},
                "buckets": {"tokens": (5, 8)},
            },
            "parallel": "single",
            "stages": stages,
        }
    )
