"""The heart of the line: a student on cached logits is the student with its teacher beside it."""

import json

import numpy as np
import pytest

from kdjax import tree
from kdjax.artifacts import Artifact, finish
from kdjax.artifacts.model import load
from kdjax.train import recorder
from kdjax.types import BadInput


def _losses(task):
    return {
        name: np.array([metrics[name] for metrics in recorder.read(task.folder / "metrics.jsonl")])
        for name in ("loss", "loss/kd", "loss/ce")
    }


def test_cached_is_live(line):
    cached = line.run(stages__student__steps=200)["student"]
    live = line.run(stages__student__steps=200, stages__student__live=True)["student"]
    assert cached.folder != live.folder
    found, wanted = _losses(cached), _losses(live)
    assert len(wanted["loss"]) == 200  # over 22 epochs of 287 images: each of two views many times
    for name in wanted:
        np.testing.assert_allclose(found[name], wanted[name], atol=1e-5, rtol=1e-5)
    assert wanted["loss/kd"].std() > 0


def test_another_view_is_another_loss(line):
    """The comparison above would notice a student that sees the first view each time."""
    two = _losses(line.run()["student"])["loss/kd"]
    one = _losses(line.run(stages__cache__views=1)["student"])["loss/kd"]
    np.testing.assert_allclose(one[:8], two[:8], atol=1e-5, rtol=1e-5)  # the first epoch: view 0
    assert np.abs(one[10:] - two[10:]).max() > 1e-3


@pytest.mark.parametrize(
    ("mode", "dispatch_steps", "whole"),
    [("stream", 4, True), ("stream", 1, False), ("resident", 4, False)],
)
def test_same_batches_in_each_mode(line, mode, dispatch_steps, whole):
    """Of the student; once of the whole line, whose other stages are then fed in this way, too."""
    wanted = _losses(line.run()["student"])
    name = f"{mode}{dispatch_steps}"
    other = type(line)(line.workdir / name) if whole else line.copy(name)
    found = other.run(data__mode=mode, stages__student__dispatch_steps=dispatch_steps)["student"]
    for name, values in _losses(found).items():
        np.testing.assert_allclose(values, wanted[name], atol=2e-5, rtol=2e-5)


def test_pruned_zeros_are_on_disk(line):
    task = line.run(
        stages__pruned={
            "kind": "distill",
            "cache": "cache",
            "start_from": "student",
            "steps": 8,
            "batch": 32,
            "ema": 0.9,
            "optimizer": {"name": "adamw", "learning_rate": 0.01, "weight_decay": 0.1},
            "prune": {
                "name": "gradual",
                "sparsity": 0.75,
                "begin_step": 0,
                "end_step": 6,
                "every_steps": 2,
            },
        }
    )["pruned"]
    artifact = Artifact.open(task.folder, task.stage)
    _, variables = load(artifact, field="here")
    for name, leaf in tree.named_leaves(variables["params"]).items():
        if name.endswith("/kernel"):
            assert int((leaf == 0).sum()) == round(0.75 * leaf.size), name
    assert artifact.manifest["zeros"] == artifact.manifest["pruned"]
    (row,) = artifact.manifest["rows"]
    assert row["params"] - row["nonzero_params"] >= artifact.manifest["pruned"]
    assert row["sparsity"] == pytest.approx(0.75, abs=0.01)


def test_a_tampered_cache_is_refused(line, tmp_path):
    fresh = type(line)(line.workdir / "tampered")
    task = fresh.run(only=["cache"])["cache"]
    manifest = task.folder / "cache" / "manifest.json"
    said = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**said, "teacher": "another"}))
    finish(task.folder, Artifact.open(task.folder, task.stage).manifest)
    with pytest.raises(BadInput, match=r"teacher is 'another', expected .*run the cache stage"):
        fresh.run()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stages__student__cache": "teacher"}, "cache: teacher is not a stage of kind cache"),
        ({"stages__student__start_from": "pretrain"}, "give one of start_from"),
        ({"stages__teacher__start_from": None}, "give one of start_from"),
        ({"stages__student__batch": 0}, r"config.stages.student.batch: 0 is not in \[1, "),
        ({"stages__cache__teacher": "pretrain"}, "pretrain has no head"),
        (
            {"stages__cache__teacher": "pretrain", "stages__student__live": True},
            r"config.stages.cache.teacher: pretrain has no head",
        ),
        ({"stages__cache__views": 0}, r"cache.views: 0 is not in \[1, "),
        (
            {
                "stages__student__prune": {
                    "name": "gradual",
                    "sparsity": 0.5,
                    "begin_step": 0,
                    "end_step": 30,
                    "every_steps": 1,
                }
            },
            r"prune.end_step: 30 is not in \[0, steps\)",
        ),
        (
            {"stages__student__optimizer__schedule": {"name": "cosine", "warmup_steps": 30}},
            "warmup_steps: 30 is not in",
        ),
    ],
)
def test_bad_stages(line, changes, message):
    with pytest.raises(BadInput, match=message):
        line.run(**changes)


def test_the_student_sees_the_teachers_size(line):
    tasks = line.run(stages__teacher__views__size=10, stages__student__steps=2)
    student = Artifact.open(tasks["student"].folder, tasks["student"].stage)
    assert student.manifest["model"]["inputs"]["parts"][0]["size"] == [10, 10]
    live = line.run(
        stages__teacher__views__size=10, stages__student__steps=2, stages__student__live=True
    )["student"]
    np.testing.assert_allclose(_losses(live)["loss"], _losses(tasks["student"])["loss"], rtol=1e-5)
