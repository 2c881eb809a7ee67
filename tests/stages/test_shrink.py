import json

import jax
import numpy as np
import pytest

from kdjax import pipeline, report, tree
from kdjax.artifacts import Artifact
from kdjax.artifacts.model import load
from kdjax.types import BadInput

_SHRUNK = {"kind": "shrink", "model": "student", "sparsity": 0.5, "examples": 64}
_AFTER = {
    "kind": "distill",
    "cache": "cache",
    "start_from": "shrunk",
    "steps": 4,
    "batch": 32,
    "optimizer": {"name": "sgd", "learning_rate": 0.05},
}


def _opened(task):
    artifact = Artifact.open(task.folder, task.stage)
    return artifact, *load(artifact, field="here")


def test_a_shrunk_student_is_a_model_like_any_other(line):
    """Restored by its manifest alone, trained on, quantized, exported."""
    tasks = line.run(
        stages__shrunk=_SHRUNK,
        stages__after=_AFTER,
        stages__int8={"kind": "quantize", "model": "after", "agreement": 0.5},
        stages__files={"kind": "export", "model": "after"},
    )
    artifact, spec, variables = _opened(tasks["shrunk"])
    shapes = {n: v.shape for n, v in tree.named_leaves(variables["params"]).items()}
    assert shapes["encoder/block0/conv/kernel"] == (3, 3, 1, 2)
    assert shapes["encoder/block1/conv/kernel"] == (3, 3, 2, 4)
    assert shapes["classifier/kernel"] == (4, 10)
    assert spec.name == "cnn-4-8 shrunk"
    shrunk = artifact.manifest["shrunk"]
    assert shrunk["difference"] <= 1e-5
    assert [(g["size"], g["kept"]) for g in shrunk["groups"]] == [(4, 2), (8, 4)]
    (row,) = artifact.manifest["rows"]
    _, _, before = _opened(tasks["student"])
    assert row["params"] == tree.size(variables["params"]) < tree.size(before["params"])
    # 8x8 and 4x4 images: multiply-accumulates counted by hand.
    assert row["flops"] == 2 * (64 * 9 * 1 * 2 + 16 * 9 * 2 * 4 + 4 * 10)
    json.dumps(artifact.manifest)

    _, after, trained = _opened(tasks["after"])
    assert after.widths == spec.widths
    assert not tree.differences(trained, variables)
    changed = jax.tree.map(lambda a, b: bool(np.any(a != b)), trained, variables)
    assert all(jax.tree.leaves(changed))


def test_what_masks_have_emptied_is_taken_away(line):
    """Units pruned while training: held at zero, then gone; the model says what it said."""
    units = {"name": "units"}
    prune = {"name": "gradual", "sparsity": 0.5, "begin_step": 0, "end_step": 4, "every_steps": 1}
    slim = {
        "kind": "distill",
        "cache": "cache",
        "start_from": "student",
        "steps": 6,
        "batch": 32,
        "optimizer": {"name": "adamw", "learning_rate": 0.01, "weight_decay": 0.1},
        "scale_l1": 0.01,
        "prune": {**prune, "pattern": units},
    }
    tasks = line.run(
        stages__slim=slim,
        stages__shrunk={**_SHRUNK, "model": "slim", "sparsity": 0.0, "examples": 0},
    )
    artifact, _, masked = _opened(tasks["slim"])
    assert artifact.manifest["pruned"] == artifact.manifest["prunable"] - sum(
        int((leaf != 0).sum())
        for name, leaf in tree.named_leaves(masked["params"]).items()
        if name in artifact.manifest["masked"]
    )
    shrunk, _, variables = _opened(tasks["shrunk"])
    assert tree.size(variables["params"]) == tree.nonzero(masked["params"])
    assert shrunk.manifest["rows"][0]["scores"] == artifact.manifest["rows"][0]["scores"]


def test_sensitivity_decides_who_loses_what(line):
    sensitivity = {"kind": "sensitivity", "model": "student", "examples": 64}
    shrunk = {**_SHRUNK, "sensitivity": "bears", "sparsity": 0.25}
    tasks = line.run(stages__bears=sensitivity, stages__shrunk=shrunk)
    said = Artifact.open(tasks["bears"].folder, tasks["bears"].stage).manifest["sensitivity"]
    assert list(said["curves"]) == ["encoder/block0/conv", "encoder/block1/conv"]
    for curve in said["curves"].values():
        assert all(increase >= 0 for increase in curve.values())  # a KL to itself
    groups = _opened(tasks["shrunk"])[0].manifest["shrunk"]["groups"]
    assert 8 <= sum(g["kept"] for g in groups) <= 10  # a quarter of twelve, rounded group by group


@pytest.mark.parametrize(
    ("budget", "measured"),
    [({"params": 300}, "params"), ({"flops": 20_000}, "flops")],
    ids=["params", "flops"],
)
def test_a_budget_is_met(line, budget, measured):
    shrunk = {**_SHRUNK, "sparsity": 0.0, "budget": budget, "examples": 0}
    artifact, *_ = _opened(line.run(stages__shrunk=shrunk)["shrunk"])
    (row,) = artifact.manifest["rows"]
    assert 0.4 * budget[measured] < row[measured] <= budget[measured]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sparsity": 1.0}, r"config.stages.shrunk.sparsity: 1.0 is not in \[0, 1\)"),
        ({"model": "pretrain"}, "config.stages.shrunk.model: pretrain has no head"),
        (
            {"frozen": "stem"},
            "shrunk.frozen: 'stem' matches no group; the first is 'encoder/block0",
        ),
        ({"frozen": ".*"}, "student has no group of units that can lose any"),
        ({"sparsity": 0.0, "budget": {"params": 10}}, "shrunk.budget: "),
        (
            {"sparsity": 0.0, "budget": {}},
            "budget: give one of params, flops, bytes, latency_ms",
        ),
        ({"budget": {"params": 10}}, "give one of sparsity and budget"),
        ({"sensitivity": "teacher"}, "teacher is not a stage of kind sensitivity of student"),
        ({"multiple": 0}, "multiple: 0 is not in"),
        ({"examples": 10**6}, "shrunk.examples: 1000000 is not between 1 and"),
    ],
)
def test_bad_shrinking(line, changes, message):
    with pytest.raises(BadInput, match=message):
        line.run(stages__shrunk={**_SHRUNK, **changes})


def test_the_report_shows_the_groups_and_what_they_bear(line, tmp_path):
    changes = {
        "stages__bears": {"kind": "sensitivity", "model": "student", "examples": 64},
        "stages__shrunk": _SHRUNK,
    }
    line.run(**changes)
    run, _, splits = line.plan(**changes, seeds=[0, 1])
    done = pipeline.finished(run, line.workdir, splits).manifests
    found = {key: pipeline.first_said(done, key) for key in ("shrunk", "sensitivity")}
    assert [list(stages) for stages in found.values()] == [["shrunk"], ["bears"]]
    assert found["shrunk"]["shrunk"]["seed"] == 0  # seed 1 has yet to be run
    report.write(tmp_path, run={"seeds": [0, 1]}, rows=[], curves={}, parity=[], **found)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<h3>shrunk: 6 of 12 units kept</h3>" in page
    assert "<h3>bears: loss when one group alone is pruned</h3>" in page
    assert page.count("Of seed 0 alone, of 2 seeds.") == 2
    written = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert {key: written[key] for key in found} == found


def test_fewer_training_images_than_a_batch_are_enough(line):
    """60 in all: the comparison and the statistics are over those, and none is asked for twice."""
    shrunk = {"kind": "shrink", "model": "teacher", "sparsity": 0.5, "examples": 60}
    few = line.run(
        only=["shrunk"],
        data__train_split="train[:60]",
        data__labels_per_class=1,
        stages__teacher__start_from=None,
        stages__teacher__encoder={"name": "cnn", "widths": [4, 8]},
        stages__shrunk=shrunk,
    )
    task = few["shrunk"]
    said = Artifact.open(task.folder, task.stage).manifest
    assert said["shrunk"]["difference"] <= 1e-5
    assert [group["kept"] for group in said["shrunk"]["groups"]] == [2, 4]
