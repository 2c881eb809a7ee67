"""What is given and changes nothing is refused, by its path; what does is taken."""

import pytest

from kdjax import config, load, parse
from kdjax.checks.coupling import check_rows
from kdjax.checks.effect import check_effect
from kdjax.types import BadInput
from tests import config_lines

SHARED = {
    "steps": 2,
    "batch": 8,
    "optimizer": {"name": "sgd", "learning_rate": 0.1},
}
CNN = {"name": "cnn", "widths": [4]}
CROP = {"recipe": "crop_flip", "crop_scale": [0.5, 1.0]}
FINETUNE = {"kind": "finetune", "encoder": CNN, "views": {"recipe": "crop_flip"}, **SHARED}
DISTILL = {"kind": "distill", "cache": "cache", "encoder": CNN, **SHARED}
GRADUAL = {"name": "gradual", "begin_step": 0, "end_step": 1, "every_steps": 1, "sparsity": 0.5}
UNITS = {**GRADUAL, "pattern": {"name": "units"}}
N_M = {**GRADUAL, "sparsity": None, "pattern": {"name": "n_m"}}
QUANTIZE = {"kind": "quantize", "model": "one"}
SENSITIVITY = {"kind": "sensitivity", "model": "one", "numbers": [{}]}
EVALUATE = {"kind": "evaluate", "model": "one"}


def check(stage, **data):
    run = {"name": "idle", "data": {"name": "digits", **data}, "stages": {"one": stage}}
    check_effect(parse.parse(config.Run, run))


@pytest.mark.parametrize(
    ("idle", "path", "mended"),
    [
        (
            {**FINETUNE, "views": {**CROP, "shift": 1}},
            "views.shift: 1",
            {**FINETUNE, "views": {**CROP, "shift": 0}},
        ),
        (
            {**FINETUNE, "views": {"recipe": "crop_flip", "crop_ratio": [0.5, 2.0]}},
            "views.crop_ratio: (0.5, 2.0)",
            {**FINETUNE, "views": {**CROP, "crop_ratio": [0.5, 2.0]}},
        ),
        (
            {**FINETUNE, "prune": {**GRADUAL, "end_step": 3, "rounds": 3}, "steps": 4},
            "prune.rounds: 3",
            {
                **FINETUNE,
                "prune": {**GRADUAL, "end_step": 3, "rounds": 3, "schedule": "periodic"},
                "steps": 4,
            },
        ),
        (
            {**FINETUNE, "prune": {**UNITS, "score": "random"}},
            "prune.score: 'random'",
            {**FINETUNE, "prune": {**GRADUAL, "score": "random"}},
        ),
        (
            {**FINETUNE, "prune": {**UNITS, "prunable": "encoder/.*"}},
            "prune.prunable: 'encoder/.*'",
            {**FINETUNE, "prune": UNITS},
        ),
        (
            {**FINETUNE, "prune": {**N_M, "allocation": "erk"}},
            "prune.allocation: 'erk'",
            {**FINETUNE, "prune": N_M},
        ),
        (
            {**DISTILL, "logits": {"name": "mse"}, "temperature": 2.0},
            "temperature: 2.0",
            {**DISTILL, "logits": {"name": "ce"}, "temperature": 2.0},
        ),
        (
            {**QUANTIZE, "percentile": 99.0},
            "percentile: 99.0",
            {**QUANTIZE, "percentile": 99.0, "calibration": "percentile"},
        ),
        (
            {**QUANTIZE, "rules": [{}, {"weights": None, "scale": "mse"}]},
            "rules[1].scale: 'mse'",
            {**QUANTIZE, "rules": [{"scale": "mse"}, {"weights": None}]},
        ),
        (
            {**SENSITIVITY, "sparsities": [], "score": "group_l2"},
            "score: 'group_l2'",
            {**SENSITIVITY, "score": "group_l2"},
        ),
        (
            {**EVALUATE, "linear": {"strengths": [0.1], "validation": 0.5}},
            "linear.validation: 0.5",
            {**EVALUATE, "linear": {"validation": 0.5}},
        ),
    ],
)
def test_what_nothing_reads_is_refused(idle, path, mended):
    with pytest.raises(BadInput) as error:
        check(idle)
    assert str(error.value).startswith(f"config.stages.one.{path} has no effect, as ")
    check(mended)


def test_the_names_of_features_are_of_prepared_data():
    with pytest.raises(
        BadInput, match=r"^config.data.image_key: 'pixels' has no effect, as digits"
    ):
        check(FINETUNE, image_key="pixels")
    check(FINETUNE, name="cifar10", image_key="pixels")


def test_every_config_of_the_repository_is_taken():
    tried = 0
    for path in config_lines.FILES:
        for arg in ("", ":runlocal"):
            run = load.load_config(f"{path}{arg}")
            check_effect(run)
            check_rows(run)
            tried += 1
    assert tried > 50
