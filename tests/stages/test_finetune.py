"""What a classifier learns from besides its labels."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from etils import epath

from kdjax import config, losses, models, parse, pipeline, tasks, train
from kdjax.contexts import Splits
from kdjax.stages import finetune
from kdjax.train import parallel
from kdjax.types import BadInput


def test_a_virtual_teacher_beside_the_labels():
    key = jax.random.key(0)
    model = models.Classifier(models.CNN([4]), 3)
    images, label = jax.random.normal(key, (6, 8, 8, 1)), jnp.arange(6) % 3
    variables = model.init(key, images, train=True)
    state = train.TrainState.start(variables, optax.sgd(0.1))
    free = config.TeacherFree(weight=0.3, ce_weight=0.6)
    task = tasks.Classification(classes=3)
    objective = finetune.objective(model, task.terms(teacher_free=free))
    loss, (_, metrics) = objective(state.params, state, {"inputs": images, "label": label}, key)
    outputs, _ = model.apply(variables, images, train=True, mutable=["batch_stats"])
    ce = losses.cross_entropy(outputs["logits"], label).mean()
    virtual = losses.tf_kd(outputs["logits"], label, correct_probability=0.99, temperature=20.0)
    np.testing.assert_allclose(metrics["loss/tf_kd"], virtual.mean(), rtol=1e-6)
    np.testing.assert_allclose(loss, 0.6 * ce + 0.3 * virtual.mean(), rtol=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"label_smoothing": 0.1}, "teacher.label_smoothing: 0.1, and teacher_free smooths"),
        (
            {"teacher_free": {"correct_probability": 1.0}},
            r"teacher.teacher_free.correct_probability: 1.0 is not in \(0, 1\)",
        ),
        ({"teacher_free": {"temperature": 0.0}}, "teacher_free.temperature: 0.0 is not in"),
    ],
)
def test_bad_virtual_teachers(line, changes, message):
    changes = {"teacher_free": {}, **changes}
    named = {f"stages__teacher__{name}": value for name, value in changes.items()}
    with pytest.raises(BadInput, match=message):
        line.run(only=["teacher"], **named)


@pytest.mark.parametrize("more", [0, 1])
def test_a_training_that_is_shown_few_numbers_is_compiled_soon(line, monkeypatch, more):
    line.run(only=["pretrain"])
    asked = []
    monkeypatch.setattr(parallel, "_soon", asked.append)  # what it gives are options: none
    monkeypatch.setattr(train, "BRIEF", 5 * 16 * 64 + more)  # steps, images, pixels
    line = line.copy(f"brief{more}", without="teacher")
    line.run(only=["teacher"], stages__teacher__steps=5, stages__teacher__batch=16)
    assert asked == [bool(more)]


@pytest.mark.thorough
def test_an_average_is_worth_what_it_averages(tmp_path):
    """Digits: a slow average began at the random parameters, with the statistics of others: 10 %."""
    stage = {
        "kind": "finetune",
        "encoder": {"name": "cnn", "widths": [16, 32]},
        "views": {"recipe": "crop_flip", "shift": 1, "flip": 0.0},
        "labels_share": 1.0,
        "steps": 400,
        "batch": 64,
        "optimizer": {"name": "sgd", "learning_rate": 0.05, "schedule": {"name": "constant"}},
    }
    stages = {
        f"ema{decay}".replace(".", "_"): {**stage, "ema": decay} for decay in (0.9, 0.99, 0.999)
    }
    run = parse.parse(
        config.Run,
        {
            "name": "ema",
            "data": {"name": "digits", "mean": [0.3], "std": [0.37]},
            "stages": {"plain": stage, **stages},
        },
    )
    splits = Splits(run.data)
    tasks = pipeline.plan(run, epath.Path(tmp_path), splits)
    pipeline.execute(run, tasks, splits)
    manifests = pipeline.finished(run, epath.Path(tmp_path), splits).manifests
    found = {
        task.name: manifest["rows"][0]["scores"]["accuracy"]["value"]
        for task, manifest in manifests
    }
    assert found["plain"] > 0.85
    for name in stages:
        assert found[name] > found["plain"] - 0.03, found
