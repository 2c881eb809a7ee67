"""What an encoder learns an embedding by: each method, its queue, and what it is refused for."""

import numpy as np
import pytest

from kdjax.train import recorder

SAID = {
    "kind": "cache",
    "teacher": "pretrain",
    "recipe": {"recipe": "crop_flip", "shift": 1, "flip": 0.0},
    "views": 2,
    "signal": {"name": "embedding"},
    "dtype": "float32",
}
LEARNER = {
    "kind": "distill_encoder",
    "cache": "said",
    "encoder": {"name": "cnn", "widths": [4, 8]},
    "steps": 6,
    "batch": 32,
    "log_every_steps": 1,
    "optimizer": {"name": "sgd", "learning_rate": 0.05},
}
METHODS = {
    "mse": {"name": "mse"},
    "seed": {"name": "seed", "queue": 64},
    "compress": {"name": "compress", "queue": 64},
    "rkd": {"name": "rkd", "distance_weight": 1.0, "angle_weight": 2.0},
    "similarity": {"name": "similarity", "weight": 1.0},
}


def _losses(task):
    return np.array([line["loss"] for line in recorder.read(task.folder / "metrics.jsonl")])


def learn(line, method, **changes):
    learner = {**LEARNER, "method": METHODS[method], **changes.pop("learner", {})}
    return line.run(only=["learner"], stages__said=SAID, stages__learner=learner, **changes)[
        "learner"
    ]


@pytest.mark.parametrize("method", METHODS)
def test_it_runs(line, method):
    task = learn(line, method)
    print(_losses(task))
