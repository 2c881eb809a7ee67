"""An encoder that begins with some of the layers of another stage's."""

import numpy as np
import pytest
from etils import epath

from kdjax import config, parse, pipeline
from kdjax.artifacts import Artifact
from kdjax.artifacts.model import encoder_of
from kdjax.contexts import Splits
from kdjax.tree import named_leaves
from kdjax.types import BadInput

VIT = {"name": "vit", "width": 8, "depth": 4, "heads": 2, "mlp": 16, "patch": 4}
_STILL = {
    "steps": 1,
    "batch": 16,
    "log_every_steps": 1,
    # So that what it leaves is what it began with, but for the last bits.
    "optimizer": {"name": "sgd", "learning_rate": 1e-12},
}
_VIEWS = {"recipe": "eval"}
_DATA = {"name": "digits", "train_split": "train[:20%]", "test_split": "test[:5%]"}


def run_of(weights, *, encoder=(), **stages):
    """A teacher of four blocks and a student of two that begins from it."""
    encoder = dict(encoder)
    base = {} if "name" in encoder else {**VIT, "depth": 2}
    small = {**base, **encoder, "weights": weights}
    line = {
        "teacher": {"kind": "finetune", "encoder": VIT, "views": _VIEWS, **_STILL},
        "cache": {"kind": "cache", "teacher": "teacher", "recipe": _VIEWS, "views": 1},
        "student": {"kind": "distill", "cache": "cache", "encoder": small, **_STILL},
        **stages,
    }
    run = {"name": "layers", "data": _DATA, "parallel": "single", "stages": line}
    return parse.parse(config.Run, run)


def checked(run, folder):
    splits = Splits(run.data)
    tasks = pipeline.plan(run, epath.Path(folder), splits)
    pipeline.check(run, tasks, splits)
    return tasks, splits


def left(run, folder):
    tasks, splits = checked(run, folder)
    pipeline.execute(run, tasks, splits)
    found = {}
    for task in tasks:
        if task.name != "cache":
            _, read = encoder_of(Artifact.open(task.folder, task.stage), field="here")
            found[task.name] = {
                name: np.asarray(leaf) for name, leaf in named_leaves(read()["params"]).items()
            }
    return found


def test_a_student_begins_with_the_blocks_that_it_names(tmp_path, capsys):
    own = {"kind": "pretrain", "views": {"recipe": "simclr"}, **_STILL}
    weights = {"stage": "teacher", "blocks": [3, 1], "fresh": "params/norm/scale"}
    encoder = {**VIT, "depth": 2, "weights": weights}
    found = left(run_of(weights, own={**own, "encoder": encoder}), tmp_path)
    for stage in ("student", "own"):
        for name, value in found[stage].items():
            there = name.replace("block1/", "block@/").replace("block0/", "block3/")
            there = there.replace("block@/", "block1/")
            np.testing.assert_allclose(value, found["teacher"][there], atol=1e-9)
        # Not by chance: block 0 of the two is not block 0 of the four.
        kernel = "block0/attention/query/kernel"
        assert np.abs(found[stage][kernel] - found["teacher"][kernel]).max() > 0.1
    said = capsys.readouterr().err
    assert "student: " in said
    assert "from teacher, 1 begin at random" in said


def test_other_blocks_are_another_stage(tmp_path):
    marks = []
    for blocks in ([0, 2], [0, 3]):
        tasks, _ = checked(run_of({"stage": "teacher", "blocks": blocks}), tmp_path)
        marks.append({task.name: task.fingerprint for task in tasks})
    assert marks[0]["student"] != marks[1]["student"]
    assert marks[0]["teacher"] == marks[1]["teacher"]


FAULTS = {
    "no stage": ({"stage": "nobody"}, {}, r"weights\.stage: there is no stage 'nobody'"),
    "itself": ({"stage": "student"}, {}, r"weights\.stage: they need each other in a circle"),
    "a cache": ({"stage": "cache"}, {}, r"weights\.stage: cache has no head"),
    "few": (
        {"stage": "teacher", "blocks": [1]},
        {},
        r"weights\.blocks: 1, and the encoder has 2 blocks; give one for each",
    ),
    "far": (
        {"stage": "teacher", "blocks": [1, 4]},
        {},
        r"weights\.blocks: 4, and teacher has 0 to 3; take one of them",
    ),
    "wide": (
        {"stage": "teacher", "blocks": [0, 1]},
        {"mlp": 24},
        r"weights\.stage: params/block0/mlp_in/bias of teacher is \[16\], and params/block0/mlp_in/"
        r"bias is \[24\]; give the encoder the sizes",
    ),
    "more": (
        {"stage": "teacher"},
        {"class_token": True},
        r"weights\.stage: teacher has no params/class_embedding, which .*; give fresh a pattern",
    ),
    "no match": (
        {"stage": "teacher", "fresh": "pooler"},
        {},
        r"weights\.fresh: 'pooler' matches no variable",
    ),
    "no blocks": (
        {"stage": "teacher", "blocks": [0, 1]},
        {"name": "resnet18"},
        r"weights\.blocks: no variable of the encoder is named by a block",
    ),
    "no stage given": ({"blocks": [0]}, {}, r"weights\.blocks: unknown field"),
}


@pytest.mark.parametrize("case", FAULTS)
def test_layers_that_are_not_there_are_refused_in_one_line_before_anything_runs(case, tmp_path):
    weights, encoder, line = FAULTS[case]
    with pytest.raises(BadInput, match=rf"^config\.stages\.student\.encoder\.{line}") as refused:
        checked(run_of(weights, encoder=encoder), tmp_path)
    assert "\n" not in str(refused.value)


def test_a_stage_that_trains_nothing_takes_no_layers():
    stage = {"kind": "pretrained", "encoder": {**VIT, "weights": {"stage": "teacher"}}}
    with pytest.raises(
        BadInput, match=r"^config\.stages\.own\.encoder\.weights: layers of a stage"
    ):
        run_of(None, own=stage)
