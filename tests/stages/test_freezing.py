"""Fine-tuning with something frozen, through the stages."""

import numpy as np
import pytest

from kdjax import pipeline, train, tree
from kdjax.types import BadInput


def _left(task):
    """Parameters, and statistics, that a stage has left."""
    found = train.load_any(task.folder / "variables")
    return {name: np.asarray(leaf) for name, leaf in tree.named_leaves(found).items()}


def _optimizer(**how):
    return {"name": "adamw", "learning_rate": 0.01, "weight_decay": 0.1, **how}


@pytest.mark.thorough
def test_an_encoder_that_is_frozen_is_the_one_that_it_began_as(line):
    """Also in its average, whose statistics are otherwise found anew."""
    of = _optimizer(frozen="encoder/.*", rates=[["classifier/bias", 2.0]])
    tasks = line.run(only=["teacher"], stages__teacher__optimizer=of, stages__teacher__ema=0.9)
    before, after = _left(tasks["pretrain"]), _left(tasks["teacher"])
    own = [name for name in after if "/encoder/" in name]
    assert any(name.startswith("batch_stats/") for name in own)
    for name in own:
        assert after[name].tobytes() == before[name].tobytes(), name
    assert np.abs(after["params/classifier/bias"]).max() > 0


@pytest.mark.parametrize(
    ("changes", "line_of"),
    [
        (
            {"optimizer": _optimizer(frozen="encoder/stem.*")},
            r"optimizer.frozen: 'encoder/stem.\*' matches no parameter of this model; a pattern is of "
            "whole names; the first of them is 'classifier/bias'",
        ),
        (
            {"optimizer": _optimizer(unfreeze=[["encoder/.*", 3], ["enc", 2]])},
            r"optimizer.unfreeze\[1\]: 'enc' matches no",
        ),
        (
            {"optimizer": _optimizer(unfreeze=[["encoder/.*", 6]])},
            r"optimizer.unfreeze\[0\]\[1\]: 6 is not in \[0, steps\), and steps is 6",
        ),
        (
            {"optimizer": _optimizer(unfreeze=[["encoder/.*", 0]])},
            r"optimizer.unfreeze\[0\]\[1\]: 0 is not in \[1",
        ),
        ({"optimizer": _optimizer(frozen="enc(")}, "optimizer.frozen: "),
        (
            {"optimizer": _optimizer(decayed=".*/weight")},
            r"optimizer.decayed: '.\*/weight' matches no parameter of this model, and weight_decay is",
        ),
        (
            {"optimizer": _optimizer(frozen_statistics=False)},
            "optimizer.frozen_statistics: nothing is frozen; give a pattern",
        ),
        ({"optimizer": _optimizer(layers=[".*"])}, "optimizer.layers: there is no layer_decay"),
        (
            {"optimizer": _optimizer(layer_decay=1.5)},
            r"optimizer.layer_decay: 1.5 is not in \(0, 1\]",
        ),
        (
            {"optimizer": _optimizer(layer_decay=0.5, layers=["encoder/blok.*"])},
            r"optimizer.layers\[0\]: 'encoder/blok.\*' has no parameter",
        ),
        (
            {"optimizer": _optimizer(rates=[["clasifier/.*", 2.0]])},
            r"optimizer.rates\[0\]: 'clasifier/.\*' matches no parameter",
        ),
        (
            {"optimizer": _optimizer(frozen=".*/scale"), "scale_l1": 0.1},
            r"scale_l1: optimizer.frozen has all that '.\*/scale' matches",
        ),
        (
            {
                "optimizer": _optimizer(frozen="encoder/block0/.*"),
                "prune": {
                    "name": "gradual",
                    "sparsity": 0.5,
                    "begin_step": 0,
                    "end_step": 4,
                    "every_steps": 2,
                },
            },
            "prune.prunable: encoder/block0/conv/kernel is pruned, and the optimizer has it frozen; ",
        ),
        (
            {
                "optimizer": _optimizer(unfreeze=[["encoder/block0/.*", 3]]),
                "prune": {
                    "name": "gradual",
                    "sparsity": 0.5,
                    "begin_step": 2,
                    "end_step": 4,
                    "every_steps": 2,
                    "pattern": {"name": "units"},
                },
            },
            "prune.prunable: encoder/block0/.* has it frozen until step 3",
        ),
    ],
    ids=lambda value: "",
)
def test_refused_before_anything_runs(line, changes, line_of):
    changes = {f"stages__teacher__{name}": value for name, value in changes.items()}
    with pytest.raises(BadInput, match=rf"^config.stages.teacher.{line_of}"):
        pipeline.check(*line.plan(only=["teacher"], **changes))
