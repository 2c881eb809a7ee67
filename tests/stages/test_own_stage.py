"""A stage of the user's, from outside the package: run, read by others, resumed, run again, refused."""

import errno
import json
import math
import os

import jax
import numpy as np
import pytest
from etils import epath

from kdjax import config, parse, pipeline
from kdjax.artifacts import Artifact
from kdjax.artifacts.model import load
from kdjax.commands.report import write_report
from kdjax.commands.verify import verify
from kdjax.types import BadInput, StorageFailed
from tests import own_stages
from tests.stages.conftest import LINE

OTHER = {**LINE["stages"]["student"], "temperature": 1.0, "steps": 4}
MEAN = {
    "kind": "own",
    "function": "tests.own_stages:Averaged",
    "reads": ["student", "other"],
    "leaves": "student",
    "weights": [3, 1],
}
COARSE = {
    "kind": "own",
    "function": "tests.own_stages:rounded",
    "reads": ["mean"],
    "leaves": "mean",
    "step": 0.25,
}
SURE = {"kind": "own", "function": "tests.own_stages:sure", "reads": ["cache", "coarse"]}
STAGES = {
    "stages__other": OTHER,
    "stages__mean": MEAN,
    "stages__coarse": COARSE,
    "stages__sure": SURE,
}
FOLLOWING = {
    "stages__after": {"kind": "finetune", "start_from": "mean", "views": {"recipe": "eval"}}
    | {k: OTHER[k] for k in ("steps", "batch", "optimizer")},
    "stages__int8": {"kind": "quantize", "model": "mean", "agreement": 0.0},
    "stages__file": {"kind": "export", "model": "coarse", "formats": ["stablehlo"]},
}


@pytest.fixture(scope="module")
def done(line):
    """The artifacts, by stage."""
    return {name: Artifact.open(t.folder, t.stage) for name, t in line.run(**STAGES).items()}


def test_the_mean_of_two_models_is_left_and_measured(done):
    spec, mean = load(done["mean"], field="here")
    assert spec == load(done["student"], field="here")[0]
    first, second = (load(done[name], field="here")[1] for name in ("student", "other"))
    wanted = jax.tree.map(lambda a, b: 0.75 * np.asarray(a) + 0.25 * np.asarray(b), first, second)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7), mean, wanted)
    assert any(
        np.abs(a - b).max() > 1e-3
        for a, b in zip(*map(jax.tree.leaves, (first, second)), strict=True)
    )
    (row,) = done["mean"].manifest["rows"]
    assert (row["stage"], row["params"]) == ("mean", done["student"].manifest["rows"][0]["params"])
    assert done["mean"].manifest["own"] == {"share": [0.75, 0.25]}


@pytest.mark.thorough
def test_other_stages_begin_from_it_quantize_it_and_write_its_file(done, line):
    tasks = line.run(**STAGES, **FOLLOWING)
    said = {name: Artifact.open(task.folder, task.stage).manifest for name, task in tasks.items()}
    (file,) = said["file"]["rows"]
    assert file["stage"] == "coarse.stablehlo"
    assert file["scores"] == said["coarse"]["rows"][0]["scores"]
    assert said["after"]["model"] == said["mean"]["model"]
    assert said["int8"]["model"]["rules"]


def test_a_table_and_what_it_says_are_there_for_others(done):
    coarse = load(done["coarse"], field="here")[1]["params"]
    assert all((np.asarray(leaf) * 4 % 1 == 0).all() for leaf in jax.tree.leaves(coarse))
    listed = done["coarse"].manifest["files"]
    assert "moved.csv" in listed
    said = done["sure"].manifest
    assert said["own"]["rows"] == 16
    assert said["own"]["moved"] == done["coarse"].manifest["own"]["moved"] > 0
    assert 0.1 < said["own"]["sure"] <= 1
    assert "rows" not in said


@pytest.mark.thorough
def test_its_row_stands_in_the_report_and_its_folder_is_whole(done, line, tmp_path):
    run, tasks, splits = line.plan(**STAGES)
    assert all(task.done for task in tasks)
    write_report(run, line.workdir, splits, command="kdjax")
    rows = {row["stage"] for row in json.loads((line.workdir / "report.json").read_text())["rows"]}
    assert {"mean", "coarse"} <= rows
    for name in ("mean", "coarse", "sure"):
        (verdict,) = verify(line.workdir, only=done[name].folder.name)
        assert verdict.state == "whole"


def test_a_change_of_its_source_or_arguments_runs_it_and_what_follows_again(
    done, line, monkeypatch, tmp_path
):
    def to_do(**changes):
        return {task.name for task in line.plan(**{**STAGES, **changes})[1] if not task.done}

    assert to_do() == set()
    after_coarse = {"coarse", "sure"}
    assert to_do(stages__coarse={**COARSE, "step": 0.5}) == after_coarse
    text = (epath.Path(own_stages.__file__)).read_text()
    with_comment = text.replace("NEAR = 0.5", "# To the nearest.\nNEAR = 0.5")
    (tmp_path / "my_stages.py").write_text(with_comment)
    monkeypatch.syspath_prepend(str(tmp_path))
    moved = {
        f"stages__{name}": {**stage, "function": stage["function"].replace("tests.own", "my")}
        for name, stage in (("mean", MEAN), ("coarse", COARSE), ("sure", SURE))
    }
    before = {t.name: t.fingerprint for t in line.plan(**{**STAGES, **moved})[1]}
    (tmp_path / "my_stages.py").write_text(text)
    assert {t.name: t.fingerprint for t in line.plan(**{**STAGES, **moved})[1]} == before
    (tmp_path / "my_stages.py").write_text(text.replace("NEAR = 0.5", "NEAR = 0.0"))
    now = {t.name: t.fingerprint for t in line.plan(**{**STAGES, **moved})[1]}
    assert {name for name in now if now[name] != before[name]} == after_coarse


def test_one_that_was_killed_is_run_again_in_an_empty_folder(done, line):
    again = line.copy("killed", without="coarse")
    folder = again.workdir / "stages" / done["coarse"].folder.name
    (folder / "old").mkdir(parents=True)
    (folder / "old" / "half.bin").write_bytes(b"half")
    (folder / "moved.csv").write_text("half a table")
    run, tasks, splits = again.plan(only=["coarse"], **STAGES)
    assert [task.name for task in tasks if not task.done] == ["coarse"]
    pipeline.execute(run, tasks, splits)
    found = Artifact.open(folder, tasks[-1].stage).manifest
    assert found["variables"] == done["coarse"].manifest["variables"]
    assert {name.partition("/")[0] for name in found["files"]} == {"moved.csv", "variables"}
    assert found["files"]["moved.csv"] == done["coarse"].manifest["files"]["moved.csv"]


def twice(given):
    variables = given.model(given.reads[0]).variables
    given.leave(variables)
    given.leave(variables)


def other_shapes(given):
    given.leave(jax.tree.map(lambda x: x[:1], given.model(given.reads[0]).variables))


def nothing(given):
    return None


def unplain(given):
    return {"a": math.inf}


def listed(given):
    return [1]


def unread(given):
    given.model("teacher")


def fails(given):
    return {}["nothing"]


def full(given):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class Early:
    def check(self, given):
        return given.folder

    def run(self, given):
        return None


class Idle:
    pass


HERE = f"{__name__}:"
FAULTS = [
    ({"weights": [1]}, r"mean.function: .*own_stages.py:\d+: ValueError: 1 weights for 2 models$"),
    ({"weights": ["a"]}, r"mean.weights\[0\]: expected a number, found 'a' \(str\)$"),
    ({"weight": [1, 2]}, r"mean.weight: unknown field; did you mean weights\?$"),
    ({"reads": ["student", "othr"]}, r"mean.reads\[1\]: there is no stage 'othr'; did you mean "),
    ({"leaves": "teacher"}, r"mean.leaves: teacher is not among what it reads; .*mean.reads$"),
    ({"function": "tests.own_stages:Averged"}, r"mean.function: .*Averged"),
    ({"function": HERE + "Idle", "weights": ...}, r"mean.function: .*Idle is a class without a"),
    ({"function": HERE + "Early", "weights": ...}, r"mean.function: given.folder in check, before"),
    ({"reads": ["student", "pretrain"]}, r"mean.reads: pretrain has no head; name a stage that"),
]


def _checked(line, stage):
    run, tasks, splits = line.plan(stages__other=OTHER, stages__mean=stage)
    pipeline.check(run, tasks, splits)


@pytest.mark.parametrize(("change", "message"), FAULTS)
def test_what_can_be_known_is_said_before_anything_runs(change, message, line):
    stage = {name: v for name, v in {**MEAN, **change}.items() if v is not ...}
    with pytest.raises(BadInput, match=rf"^config.stages.{message}") as caught:
        _checked(line, stage)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "leaves", "message"),
    [
        ("twice", True, "it leaves a second model; give that a stage of its own"),
        ("twice", False, "leaves: missing, and a model is left; name the stage it is like"),
        ("other_shapes", True, "the model it leaves is not like student's: .* is float32 "),
        ("nothing", True, r"left no model, and the config has leaves='student'; call given.leave"),
        ("unplain", False, "gave what is no JSON"),
        ("listed", False, r"gave \(int\); it is to give what the manifest says, or nothing"),
        ("unread", False, r"reads: teacher is not among \['student'\]; name it there"),
        ("fails", False, r"function: .*test_own_stage.py:\d+: KeyError: 'nothing'$"),
    ],
)
def test_what_fails_is_one_line_and_leaves_nothing_finished(done, name, leaves, message, line):
    stage = {"kind": "own", "function": HERE + name, "reads": ["student"]}
    if leaves:
        stage["leaves"] = "student"
    run, tasks, splits = line.plan(only=["one"], stages__one=stage)
    with pytest.raises(BadInput, match=message) as caught:
        pipeline.execute(run, tasks, splits)
    assert str(caught.value).startswith("config.stages.one.")
    assert not tasks[-1].done


def test_a_storage_that_is_full_is_no_fault_of_the_function(done, line):
    stage = {"kind": "own", "function": HERE + "full", "reads": ["student"]}
    run, tasks, splits = line.plan(only=["one"], stages__one=stage)
    with pytest.raises(StorageFailed):
        pipeline.execute(run, tasks, splits)


def test_a_kind_of_kdjax_with_a_function_is_refused():
    with pytest.raises(BadInput, match=r"config.kind: 'distill' is not one of own$"):
        parse.parse(config.Stage, {**OTHER, "function": "tests.own_stages:rounded"})
