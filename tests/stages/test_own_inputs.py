"""Examples that are no images, and of several arrays, through the whole line."""

import json

import jax
import numpy as np
import pytest
from etils import epath

from kdjax import config, parse, pipeline, train
from kdjax.commands.report import write_report
from kdjax.export import load_onnx, load_stablehlo
from kdjax.stages import Artifact, Splits
from kdjax.stages.model import load
from kdjax.types import BadInput
from tests import own_inputs

_PLAIN = {"recipe": "eval"}
_TRAINING = {
    "steps": 60,
    "batch": 48,
    "log_every_steps": 20,
    "optimizer": {"name": "adamw", "learning_rate": 1e-2},
}
_FILE = {"kind": "export", "formats": ["stablehlo", "onnx"]}


def _run(source, encoder, **stages):
    line = {
        "teacher": {"kind": "finetune", "encoder": encoder, "views": _PLAIN, **_TRAINING},
        "cache": {
            "kind": "cache",
            "teacher": "teacher",
            "recipe": _PLAIN,
            "views": 1,
            "dtype": "float32",
        },
        "student": {"kind": "distill", "cache": "cache", "encoder": encoder, **_TRAINING},
        "small": {
            "kind": "shrink",
            "model": "student",
            "sparsity": 0.5,
            "tolerance": 1e-4,
            "examples": 0,
        },
        "int8": {
            "kind": "quantize",
            "model": "small",
            "float_edges": False,
            "agreement": 0.9,
            "calibration_examples": 64,
        },
        "file": {**_FILE, "model": "small"},
        "int8_file": {**_FILE, "model": "int8", "agreement": 0.9},
        "probe": {"kind": "evaluate", "model": "teacher", "knn": {"k": 3}},
    }
    for name, changes in stages.items():
        line[name] = {**line[name], **changes}
    return parse.parse(
        config.Run,
        {
            "name": "own inputs",
            "data": {"name": "own", "source": {"function": source}},
            "parallel": "single",
            "scores": {"top": {"function": "tests.own_inputs:top", "primary": True}},
            "stages": line,
        },
    )


def _done(run, folder):
    splits, workdir = Splits(run.data), epath.Path(folder)
    tasks = pipeline.plan(run, workdir, splits)
    pipeline.execute(run, tasks, splits)
    write_report(run, workdir, splits, command="kdjax")
    artifacts = {task.name: Artifact.open(task.folder, task.stage) for task in tasks}
    rows = json.loads((folder / "report.json").read_text())["rows"]
    scores = {row["stage"]: row["scores"]["accuracy"]["value"] for row in rows}
    for row in rows:
        assert row["primary"] == "top"
        assert scores[row["stage"]] <= row["scores"]["top"]["value"] <= 1
    assert "top of the largest model" in (folder / "report.html").read_text()
    return artifacts, scores, splits


def _files_are_live(artifacts, splits):
    """Each file on the test examples, its inputs in the order of the dataset."""
    arrays = [*splits.test_inputs.values()]
    for name, of in (("file", "small"), ("int8_file", "int8")):
        spec, variables = load(artifacts[of], field="here")
        live = np.asarray(jax.jit(spec.predict)(variables, splits.test_inputs))
        onnx = load_onnx(artifacts[name].folder / f"{of}.onnx", threads=1)
        stablehlo = load_stablehlo(artifacts[name].folder / f"{of}.stablehlo")
        for batch in (1, 7):
            some = [array[:batch] for array in arrays]
            for run in (onnx, stablehlo):
                apart = np.abs(np.asarray(run(*some)) - live[:batch]).max()
                assert apart < (1e-4 if of == "small" else 0.2) * np.abs(live).max()


def test_tokens_through_the_whole_line(tmp_path):
    run = _run(
        "tests.own_inputs:sentences",
        {"function": "tests.own_inputs:Reader", "width": 16, "rate": 0.1},
        student={
            "prune": {
                "name": "gradual",
                "sparsity": 0.3,
                "begin_step": 0,
                "end_step": 40,
                "every_steps": 10,
                "pattern": {"name": "units"},
            }
        },
    )
    artifacts, scores, splits = _done(run, tmp_path)
    for name in ("teacher", "student", "small", "small.onnx", "int8.onnx", "probe/knn"):
        assert scores[name] > 0.8, (name, scores)
    small, _ = load(artifacts["small"], field="here")
    assert small.widths
    _files_are_live(artifacts, splits)
    onnx = load_onnx(artifacts["file"].folder / "small.onnx", threads=1)
    # What is behind the last word makes no difference: the mask is in the file.
    tokens = splits.test_inputs["tokens"][:1].copy()
    (length,) = (tokens > 0).sum(1)
    assert length < own_inputs.LENGTH
    moved = np.roll(tokens, own_inputs.LENGTH - length, axis=1)
    np.testing.assert_allclose(onnx(moved), onnx(tokens), atol=1e-4)


def test_two_inputs_are_shrunk_quantized_and_exported(tmp_path):
    run = _run("tests.own_inputs:captioned", {"function": "tests.own_inputs:Both", "width": 16})
    artifacts, scores, splits = _done(run, tmp_path)
    assert min(scores[name] for name in ("teacher", "student")) > 0.8
    assert scores["int8.onnx"] > scores["small"] - 0.1
    assert list(splits.test_inputs) == ["picture", "tokens"]
    spec, _ = load(artifacts["student"], field="here")
    assert [part.seen.shape for part in spec.inputs.parts] == [(6, 4, 1), (12,)]
    _files_are_live(artifacts, splits)
    said = artifacts["file"].manifest["parity"]
    taken = "picture: uint8 [6, 4, 1], tokens: int32 [12]; any of 1 or more"
    assert {entry["accepts"] for entry in said} == {taken}


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"views": {"recipe": "simclr"}}, "teacher.views.recipe: simclr is one of images, and an"),
        ({"views": {**_PLAIN, "size": 8}}, "teacher.views.size: 8, and there is no image among"),
    ],
)
def test_what_is_for_images_is_refused(tmp_path, changes, line):
    encoder = {"function": "tests.own_inputs:Reader", "width": 8}
    run = _run("tests.own_inputs:sentences", encoder, teacher=changes)
    splits = Splits(run.data)

    def checked():
        pipeline.check(run, pipeline.plan(run, epath.Path(tmp_path), splits), splits)

    with pytest.raises(BadInput) as caught:
        checked()
    assert str(caught.value).startswith(f"config.stages.{line}")
    assert "\n" not in str(caught.value)


def test_dropout_is_by_the_seed_and_the_step_and_never_in_evaluation():
    module = own_inputs.Reader(16, rate=0.5)
    tokens = own_inputs.sentences("train").inputs()["tokens"][:8]
    variables = module.init(jax.random.key(0), tokens, train=False)

    def run(key):
        outputs, _ = train.apply_model(module, variables["params"], {}, tokens, key)
        return np.asarray(outputs)

    first, again, other = (run(jax.random.key(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-3
    plain = module.apply(variables, tokens, train=False)
    assert np.abs(first - plain).max() > 1e-3


@pytest.mark.parametrize(
    ("source", "line"),
    [
        (
            "tests.own_inputs:missing",
            r"^config.data.source.function: .*own_inputs.py:\d+: FileNotFoundError: no file of train",
        ),
        ("tests.own_inputs:_sentences", r"^config.data.source.n: missing; it takes an integer"),
    ],
)
def test_a_source_that_fails_is_one_line(source, line):
    def read():
        return Splits(_run(source, {"name": "cnn", "widths": [4]}).data).train

    with pytest.raises(BadInput, match=line) as caught:
        read()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("scores", "line"),
    [
        (
            {"accuracy": {"function": "tests.own_inputs:top"}},
            "accuracy: the task has a score of this",
        ),
        ({"top": {"function": "tests.own_inputs:top", "k": "two"}}, "top.k: expected an integer"),
        (
            {"rows": {"function": "tests.own_inputs:count"}},
            "rows.function: tests.own_inputs:count gave 240; it is to give a number from 0 to 1, or",
        ),
        (
            {"fails": {"function": "tests.own_inputs:fails"}},
            "fails.function: .*own_inputs.py:\\d+: ZeroDivisionError",
        ),
        (
            {
                "a": {"function": "tests.own_inputs:top", "primary": True},
                "b": {"function": "tests.own_inputs:top", "primary": True},
            },
            "a.primary: models are compared by one score; choose one",
        ),
    ],
)
def test_a_score_that_is_none_is_one_line_before_anything_runs(tmp_path, scores, line):
    encoder = {"function": "tests.own_inputs:Reader", "width": 8}
    run = _run("tests.own_inputs:sentences", encoder)

    def checked():
        made = parse.parse(config.Run, {**parse.plain(run), "scores": scores})
        splits = Splits(made.data)
        pipeline.check(made, pipeline.plan(made, epath.Path(tmp_path), splits), splits)

    with pytest.raises(BadInput, match=f"^config.scores.{line}") as caught:
        checked()
    assert "\n" not in str(caught.value)


def test_a_changed_score_is_another_stage_where_it_is_measured(tmp_path):
    """And none of those that are not."""
    encoder = {"function": "tests.own_inputs:Reader", "width": 8}
    run = _run("tests.own_inputs:sentences", encoder)
    score = {"top": {"function": "tests.own_inputs:top", "k": 1}}
    other = parse.parse(config.Run, {**parse.plain(run), "scores": score})
    marks = [
        {t.name: t.fingerprint for t in pipeline.plan(r, epath.Path(tmp_path), Splits(r.data))}
        for r in (run, other)
    ]
    assert marks[0]["teacher"] != marks[1]["teacher"]
    plain = parse.parse(config.Run, {**parse.plain(run), "scores": {}})
    assert plain.scores == {}
