"""Labels that are no class of an example, through the whole line; and what needs classes refuses them."""

import itertools
import json

import jax
import numpy as np
import optax
import pytest
from etils import epath

import kdjax
from kdjax import config, parse, pipeline, teacher, train
from kdjax.artifacts import Artifact
from kdjax.artifacts.model import load
from kdjax.commands.report import write_report
from kdjax.contexts import Context, Splits
from kdjax.export import load_onnx, load_stablehlo
from kdjax.teacher_targets import audit
from kdjax.types import BadInput
from tests import own_tasks

_PLAIN = {"recipe": "eval"}
_TRAINING = {
    "steps": 100,
    "batch": 48,
    "log_every_steps": 20,
    "optimizer": {"name": "adamw", "learning_rate": 1e-2},
}
_FILE = {"kind": "export", "formats": ["stablehlo", "onnx"]}
_MLP = {"function": "tests.own_tasks:MLP", "width": 16}
_WORDS = {"function": "tests.own_tasks:Words", "width": 16}


def _run(source, encoder, only=None, buckets=None, **stages):
    line = {
        "teacher": {"kind": "finetune", "encoder": encoder, "views": _PLAIN, **_TRAINING},
        "cache": {
            "kind": "cache",
            "teacher": "teacher",
            "recipe": _PLAIN,
            "views": 1,
            "dtype": "float32",
        },
        "student": {
            "kind": "distill",
            "cache": "cache",
            "encoder": encoder,
            "prune": {
                "name": "gradual",
                "sparsity": 0.3,
                "begin_step": 0,
                "end_step": 60,
                "every_steps": 10,
                "pattern": {"name": "units"},
            },
            **_TRAINING,
        },
        "small": {
            "kind": "shrink",
            "model": "student",
            "sparsity": 0.3,
            "tolerance": 1e-4,
            "examples": 0,
        },
        "bears": {
            "kind": "sensitivity",
            "model": "small",
            "sparsities": [0.5],
            "against": "labels",
            "examples": 64,
        },
        "int8": {
            "kind": "quantize",
            "model": "small",
            "float_edges": False,
            "calibration_examples": 64,
        },
        "file": {**_FILE, "model": "small"},
        "int8_file": {**_FILE, "formats": ["onnx"], "model": "int8"},
    }
    for name, changes in stages.items():
        line[name] = {**line.get(name, {}), **changes}
    return parse.parse(
        config.Run,
        {
            "name": "own tasks",
            "data": {
                "name": "own",
                "source": {"function": f"tests.own_tasks:{source}"},
                "buckets": buckets or {},
            },
            "parallel": "single",
            "stages": {name: line[name] for name in only or line},
        },
    )


def _done(run, folder):
    splits, workdir = Splits(run.data), epath.Path(folder)
    tasks = pipeline.plan(run, workdir, splits)
    pipeline.execute(run, tasks, splits)
    write_report(run, workdir, splits, command="kdjax")
    artifacts = {task.name: Artifact.open(task.folder, task.stage) for task in tasks}
    rows = json.loads((folder / "report.json").read_text())["rows"]
    return artifacts, {row["stage"]: row for row in rows}, splits


def _checked(run, folder):
    splits = Splits(run.data)
    pipeline.check(run, pipeline.plan(run, epath.Path(folder), splits), splits)


def _answers(artifacts, splits, of):
    """Of the live model, and of its files."""
    spec, variables = load(artifacts[of], field="here")
    live = np.asarray(jax.jit(spec.predict)(variables, splits.test_inputs))
    folder = artifacts["file" if of == "small" else "int8_file"].folder
    files = [load_onnx(folder / f"{of}.onnx", threads=1)]
    if of == "small":
        files.append(load_stablehlo(folder / f"{of}.stablehlo"))
    return live, files


@pytest.mark.thorough
def test_values_through_the_whole_line(tmp_path):
    artifacts, rows, splits = _done(_run("measured", _MLP), tmp_path)
    targets = splits.test.labels
    variance = targets.var(0).mean()
    for name in ("teacher", "student", "small", "int8", "small.onnx", "int8.onnx"):
        scores = rows[name]["scores"]
        assert rows[name]["primary"] == "mse"
        assert scores["mse"]["higher_is_better"] is False
        assert scores["mse"]["value"] < 0.25 * variance, name
        low, high = scores["mse"]["ci95"]
        assert low < scores["mse"]["value"] < high
    live, files = _answers(artifacts, splits, "small")
    np.testing.assert_allclose(
        rows["small"]["scores"]["mse"]["value"], ((live - targets) ** 2).mean(), rtol=1e-5
    )
    for run in files:
        found = np.asarray(run(*splits.test_inputs.values()))
        np.testing.assert_allclose(found, live, atol=1e-4 * np.abs(live).max())
    (parity,) = artifacts["int8_file"].manifest["parity"]
    assert parity["agreement"] > parity["required_agreement"] == 0.99
    assert parity["accuracy_drop"] is None
    assert artifacts["bears"].manifest["sensitivity"]["loss"] == "the mean squared error"
    log = (artifacts["student"].folder / "metrics.jsonl").read_text().splitlines()
    assert {"loss/kd", "loss/mse"} < {*json.loads(log[-1])}
    page = (tmp_path / "report.html").read_text()
    assert "The loss is the mean squared error, over 64 training examples." in page
    assert "MSE" in page


_BUCKETS = {"tokens": [4, 6]}


@pytest.mark.thorough
@pytest.mark.parametrize("source", ["tagged", "ragged_tags"])
def test_a_tag_for_each_word_through_the_whole_line(tmp_path, source):
    run = _run(source, _WORDS, buckets=_BUCKETS if source == "ragged_tags" else {})
    artifacts, rows, splits = _done(run, tmp_path)
    for name in ("teacher", "student", "small", "int8", "small.onnx", "int8.onnx"):
        assert rows[name]["scores"]["accuracy"]["value"] > 0.9, name
    live, files = _answers(artifacts, splits, "small")
    assert live.shape == (240, 8, 3)
    shown = splits.test.labels >= 0
    right = (live.argmax(-1) == splits.test.labels)[shown].mean()
    np.testing.assert_allclose(rows["small"]["scores"]["accuracy"]["value"], right)
    lengths = (8,) if source == "tagged" else (3, 5, 8)
    for run, length in itertools.product(files, lengths):
        inputs = {**splits.test_inputs, "tokens": splits.test_inputs["tokens"][:, :length]}
        if source == "ragged_tags":
            inputs["tokens_length"] = np.minimum(inputs["tokens_length"], length)
        found = np.asarray(run(*inputs.values()))
        assert found.shape == (240, length, 3)
        apart = np.abs(found - live[:, :length])[shown[:, :length]].max()
        assert apart <= 1e-4 * np.abs(live).max()
    cached = json.loads((artifacts["cache"].folder / "cache" / "manifest.json").read_text())
    assert cached["signal"]["name"] == "Positions"


def test_what_is_cached_of_each_position_is_what_a_live_teacher_says(tmp_path):
    """Of examples put together by length, whose batches are padded to their own longest."""
    short = {**_TRAINING, "steps": 8, "log_every_steps": 1}
    fitted = {"kind": "finetune", "encoder": _WORDS, "views": _PLAIN, **short}
    taught = {"kind": "distill", "cache": "cache", "start_from": "start", **short}
    run = _run(
        "ragged_tags",
        _WORDS,
        only=["teacher", "cache", "start", "student", "asked"],
        buckets=_BUCKETS,
        teacher=short,
        start={**fitted, "steps": 2},
        student={**taught, "encoder": None, "prune": None},
        asked={**taught, "live": True},
    )
    artifacts, _, splits = _done(run, tmp_path)
    folder = artifacts["cache"].folder
    kept = teacher.TeacherCache.open(
        folder / "cache",
        expected=audit.reopened(folder).source.binding(),
        owner=folder,
    ).resident(splits.train.ids)
    lengths = splits.train.lengths["tokens"]
    np.testing.assert_array_equal(kept["teacher_length"][0], lengths)
    behind = np.arange(8) >= lengths[:, None]
    assert not np.asarray(kept["teacher_logits"])[0][behind].any()
    assert np.asarray(kept["teacher_logits"])[0][~behind].any(-1).all()
    cached, live = (
        [
            json.loads(line)
            for line in (artifacts[name].folder / "metrics.jsonl").read_text().splitlines()
        ]
        for name in ("student", "asked")
    )
    assert len(cached) == len(live) == 8
    for step, other in zip(cached, live, strict=True):
        for name in ("loss", "loss/kd", "loss/ce"):
            np.testing.assert_allclose(step[name], other[name], rtol=0, atol=1e-6)
        assert step["loss/kd"] > 1e-3


@pytest.mark.parametrize(
    ("source", "encoder"), [("measured", _MLP), ("directions", _MLP), ("tagged", _WORDS)]
)
def test_a_line_of_each_task_is_checked_before_it_runs(tmp_path, source, encoder):
    _checked(_run(source, encoder), tmp_path)


def test_a_top_k_of_each_position_and_a_live_teacher_are_checked(tmp_path):
    top_k = {"signal": {"name": "top_k", "k": 2, "temperatures": [4.0]}}
    only = ["teacher", "cache", "student"]
    _checked(_run("tagged", _WORDS, only=only, cache=top_k), tmp_path)
    _checked(_run("tagged", _WORDS, only=only, student={"live": True}), tmp_path)


def test_a_share_of_the_values_may_be_used():
    teacher = {"labels_share": 0.1}
    run = _run("measured", _MLP, only=["teacher"], teacher=teacher)
    splits = Splits(run.data)
    few = splits.labelled(0, run.stages["teacher"])
    assert (len(few), few.shown.all()) == (24, True)
    assert not splits.train.shown.any()
    partly = splits.partly_labelled(0, run.stages["teacher"])
    assert {*partly.ids[partly.shown]} == {*few.ids}
    rows, labels = _context(run, splits).labelled_sample(16, field="here")
    assert labels.shape == (16, 2)
    np.testing.assert_array_equal(labels, splits.partly_labelled(0).labels[rows])


def test_values_are_learned_in_a_notebook():
    train_set, test = own_tasks.measured("train", hidden=100), own_tasks.measured("test")
    fitted = kdjax.fit(
        own_tasks.MLP(16), train_set, steps=40, batch=48, optimizer=optax.adamw(2e-2), test=test
    )
    assert np.isfinite(fitted.history["loss/mse"]).all()
    error = (np.asarray(fitted.predict(test.inputs())["values"]) - test.labels) ** 2
    np.testing.assert_allclose(fitted.scores["mse"], error.mean(), rtol=1e-5)
    assert error.mean() < 0.5 * test.labels.var(0).mean()


def _context(run, splits):
    return Context(run, "teacher", 0, epath.Path("x"), {}, splits, train.choose("single"))


_FEW = {
    "weak": _PLAIN,
    "strong": _PLAIN,
}


@pytest.mark.parametrize(
    ("only", "stages", "line"),
    [
        (
            ["teacher"],
            {"teacher": {"label_smoothing": 0.1}},
            "teacher.label_smoothing: it needs classes, and the task is regression; leave it out",
        ),
        (["teacher"], {"teacher": {"teacher_free": {}}}, "teacher.teacher_free: it needs classes"),
        (
            ["teacher"],
            {"teacher": {"self_training": _FEW}},
            "teacher.self_training: it needs one class an example, and the task is regression",
        ),
        (
            ["teacher"],
            {"teacher": {"labels_per_class": 4}},
            "teacher.labels_per_class: the labels of measured train are 2 values, and it counts",
        ),
        (
            ["pretrain"],
            {"pretrain": {"kind": "pretrain", "probe": True}},
            "pretrain.probe: it needs one class an example, and the task is regression; leave it out",
        ),
        (
            ["teacher", "cache", "student"],
            {"cache": {"signal": {"name": "top_k", "k": 2, "temperatures": [4.0]}}},
            "cache.signal.name: it needs classes, and the task is regression; leave it out",
        ),
        (
            ["teacher", "cache", "student"],
            {"cache": {"signal": {"name": "embedding"}}},
            "student.cache: cache keeps an embedding, the features of an encoder, and not the answers",
        ),
        (
            ["teacher", "cache", "student"],
            {"student": {"logits": {"name": "dkd"}}},
            "student.logits: it needs classes, and the task is regression; leave it out",
        ),
        (
            ["teacher", "cache", "student"],
            {"student": {"standardize": True}},
            "student.standardize: it needs classes",
        ),
        (
            ["teacher", "cache", "student"],
            {"student": {"sweep": [{"temperature": 1.0}], "prune": None}},
            r"student.sweep\[0\].temperature: it needs classes",
        ),
        (
            ["teacher", "worth"],
            {"worth": {"kind": "evaluate", "model": "teacher"}},
            "worth.knn: it needs one class an example, and the task is regression; leave it out",
        ),
        (
            ["teacher", "int8"],
            {"int8": {"model": "teacher", "accuracy_drop": 0.1}},
            "int8.accuracy_drop: it needs classes, and the task is regression; leave it out",
        ),
        (
            ["teacher", "file"],
            {"file": {"model": "teacher", "accuracy_drop": 0.1}},
            "file.accuracy_drop: it needs classes",
        ),
    ],
)
def test_what_needs_classes_is_one_line_before_anything_runs(tmp_path, only, stages, line):
    def checked():
        more = {}
        if "pretrain" in only:
            more = {"encoder": _MLP, "views": _PLAIN, **_TRAINING}
        given = {name: {**more, **changes} for name, changes in stages.items()}
        _checked(_run("measured", _MLP, only=only, **given), tmp_path)

    with pytest.raises(BadInput, match=f"^config.stages.{line}") as caught:
        checked()
    assert "\n" not in str(caught.value)


def test_a_head_that_is_a_probe_needs_classes(tmp_path):
    pretrain = {
        "kind": "pretrain",
        "encoder": _MLP,
        "views": _PLAIN,
        "method": {"name": "vicreg"},
        **_TRAINING,
    }
    teacher = {"head": "probe", "start_from": "pretrain", "encoder": None}
    run = _run("measured", _MLP, only=["pretrain", "teacher"], pretrain=pretrain, teacher=teacher)
    with pytest.raises(BadInput, match=r"^config.stages.teacher.head: it needs one class an"):
        _checked(run, tmp_path)


@pytest.mark.parametrize(
    ("stages", "line"),
    [
        (
            {"student": {"logits": {"name": "dist"}}},
            "student.logits: dist is of whole examples, and the task is tagging; give kl, ce or mse",
        ),
        (
            {"teacher": {"encoder": _MLP}},
            r"teacher.encoder.function: .*features are floats \[batch, positions, dim\]",
        ),
    ],
)
def test_what_is_of_whole_examples_is_refused_of_positions(tmp_path, stages, line):
    source = "tagged" if "student" in stages else "measured_tags"
    run = _run(source, _WORDS, only=["teacher", "cache", "student"], **stages)
    with pytest.raises(BadInput, match=f"^config.stages.{line}"):
        _checked(run, tmp_path)


def test_the_test_set_is_asked_what_the_training_set_is():
    run = _run("changing", _MLP, only=["teacher"])
    with pytest.raises(BadInput, match=r"^config.data.test_split: its labels are 2 values, and of"):
        _checked(run, "x")
