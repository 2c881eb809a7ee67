"""Examples that are no images, and of several arrays, through the whole line."""

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import pytest
from etils import epath

from kdjax import config, parse, pipeline, train
from kdjax.artifacts import Artifact
from kdjax.artifacts.model import load
from kdjax.commands import run as command
from kdjax.commands.report import write_report
from kdjax.contexts import Splits
from kdjax.export import ONNX, load_onnx, load_stablehlo
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


_PRUNED = {
    "prune": {
        "name": "gradual",
        "sparsity": 0.3,
        "begin_step": 0,
        "end_step": 40,
        "every_steps": 10,
        "pattern": {"name": "units"},
    }
}


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
        line[name] = {**line.get(name, {}), **changes}
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


@pytest.mark.thorough  # `test_ragged_tokens_through_the_whole_line` does the same and more
def test_tokens_through_the_whole_line(tmp_path):
    run = _run(
        "tests.own_inputs:sentences",
        {"function": "tests.own_inputs:Reader", "width": 16, "rate": 0.1},
        student=_PRUNED,
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


def _cut(inputs, length):
    """The same examples with so many positions, those that are longer cut."""
    tokens = inputs["tokens"][:, :length]
    tokens = np.pad(tokens, ((0, 0), (0, length - tokens.shape[1])))
    return {"tokens": tokens, "tokens_length": np.minimum(inputs["tokens_length"], length)}


# With a BERT: tests/stages/test_sentences.py; lengths of files: tests/export/test_open_lengths.py.
@pytest.mark.thorough
def test_ragged_tokens_through_the_whole_line(tmp_path):
    """Put together by length as they train, and files that take any length."""
    plain = parse.plain(
        _run(
            "tests.own_inputs:ragged",
            {"function": "tests.own_inputs:Reader", "width": 16, "rate": 0.1},
            student=_PRUNED,
            words={"kind": "evaluate", "knn": None, "linear": {}},
        )
    )
    plain["data"]["buckets"] = {"tokens": [6, 9]}
    artifacts, scores, splits = _done(parse.parse(config.Run, plain), tmp_path)
    for name in ("teacher", "student", "small.onnx", "int8.onnx", "probe/knn", "words/linear"):
        assert scores[name] > 0.8, (name, scores)
    _files_are_live(artifacts, splits)
    inputs = splits.test_inputs
    for name, of in (("file", "small"), ("int8_file", "int8")):
        spec, variables = load(artifacts[of], field="here")
        onnx = load_onnx(artifacts[name].folder / f"{of}.onnx", threads=1)
        stablehlo = load_stablehlo(artifacts[name].folder / f"{of}.stablehlo")
        for length in (4, 7, own_inputs.LENGTH):
            some = _cut(inputs, length)
            live = np.asarray(jax.jit(spec.predict)(variables, some))
            for run, apart in ((stablehlo, 1e-5), (onnx, 1e-5 if of == "small" else 0.05)):
                found = np.asarray(run(*some.values()))
                assert np.abs(found - live).max() <= apart * np.abs(live).max(), (name, length)
    short = inputs["tokens_length"] <= 7
    of_short = {field: array[short] for field, array in inputs.items()}
    onnx = load_onnx(artifacts["file"].folder / "small.onnx", threads=1)
    padded = onnx(*of_short.values())
    np.testing.assert_allclose(onnx(*_cut(of_short, 7).values()), padded, atol=1e-5)
    np.testing.assert_allclose(onnx(*_cut(of_short, 30).values()), padded, atol=1e-5)
    with pytest.raises(
        BadInput, match=r"it takes int32\[batch,tokens_positions\].* given int32\[\d+,13\]"
    ):
        load_stablehlo(artifacts["file"].folder / "small.stablehlo")(*_cut(of_short, 13).values())
    (accepted,) = {entry["accepts"] for entry in artifacts["file"].manifest["parity"]}
    assert accepted == "tokens: int32 [1 to 12], tokens_length: int32 []; any of 1 or more"
    timed = [
        ONNX().call(artifacts["file"].folder / "small.onnx", threads=1, batch=2, **length)
        for length in ({}, {"length": 5})
    ]
    assert all(np.asarray(call()[0]).shape == (2, own_inputs.CLASSES) for call in timed)


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
    ("encoder", "takes"),
    [
        ({"function": "tests.own_inputs:Blind", "width": 8}, "Blind takes tokens"),
        ({"function": "tests.own_inputs:Both", "width": 8}, "Both takes picture, tokens"),
        ({"name": "cnn", "widths": [4]}, "CNN takes "),
    ],
)
def test_an_encoder_that_does_not_take_what_there_is_is_one_line(tmp_path, encoder, takes):
    run = _run("tests.own_inputs:ragged", encoder)
    splits = Splits(run.data)

    def checked():
        pipeline.check(run, pipeline.plan(run, epath.Path(tmp_path), splits), splits)

    line = rf"^config.stages.teacher.encoder: {takes}.*, and an example has tokens, tokens_length; give"
    with pytest.raises(BadInput, match=line) as caught:
        checked()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("buckets", "line"),
    [
        (
            {"token": [3]},
            "buckets.token: examples of ragged words train do not differ in length th",
        ),
        (
            {"tokens": [5, 12]},
            "buckets.tokens: 12 is no less than the longest that there may be, 12",
        ),
        ({"tokens": [5, 3]}, r"buckets.tokens: \[5, 3\] do not rise; give each once"),
        ({"tokens": []}, "buckets.tokens: "),
    ],
)
def test_buckets_that_cannot_be_are_one_line(buckets, line):
    plain = parse.plain(_run("tests.own_inputs:ragged", {"name": "cnn", "widths": [4]}))
    plain["data"]["buckets"] = buckets

    def read():
        return Splits(parse.parse(config.Run, plain).data).train

    with pytest.raises(BadInput, match=f"^config.data.{line}") as caught:
        read()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"views": {"recipe": "simclr"}}, "teacher.views.recipe: simclr is one of images, and an"),
        ({"views": {**_PLAIN, "size": 8}}, "teacher.views.size: 8, and there is no image among"),
    ],
)
def test_what_is_for_images_is_refused(tmp_path, changes, line):
    _refused(tmp_path, line, teacher=changes)


def test_words_that_are_counted_have_no_neighbours(tmp_path):
    _refused(
        tmp_path,
        "words.knn: what is counted has a linear classifier alone",
        words={"kind": "evaluate", "linear": {}},
    )


def _refused(tmp_path, line, **stages):
    encoder = {"function": "tests.own_inputs:Reader", "width": 8}
    run = _run("tests.own_inputs:sentences", encoder, **stages)
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


def test_a_changed_score_measures_again_what_is_trained_and_trains_nothing(tmp_path, capfd):
    """What judges without leaving a model is another stage; every model stays, with other rows."""
    encoder = {"function": "tests.own_inputs:Reader", "width": 8}
    students = [{"temperature": 1.0}, {"temperature": 4.0}]
    before = _run("tests.own_inputs:sentences", encoder, student={"sweep": students})
    line = {name: before.stages[name] for name in ("teacher", "cache", "student", "probe")}
    before = dataclasses.replace(before, stages=line)
    one = parse.plain(before)["scores"]["top"] | {"k": 1, "primary": False}
    other = parse.parse(config.Run, {**parse.plain(before), "scores": {"first": one}})
    splits, workdir = Splits(before.data), epath.Path(tmp_path)
    tasks, others = (
        {task.name: task for task in pipeline.plan(run, workdir, splits)} for run in (before, other)
    )
    same = {name for name, task in tasks.items() if task.fingerprint == others[name].fingerprint}
    assert same == {"teacher", "cache", "student"}

    def done(run, tasks):
        pipeline.execute(run, [*tasks.values()], splits)
        said = {name: Artifact.open(t.folder, t.stage).manifest for name, t in tasks.items()}
        times = {
            path: path.stat().st_mtime_ns
            for name in same
            for path in Path(tasks[name].folder).rglob("*")
            if path.is_file() and path.name != "manifest.json"
        }
        return said, times, capfd.readouterr().err

    first, written, _ = done(before, tasks)
    command._print_plan([*others.values()])
    states = [line.split("-")[0].split() for line in capfd.readouterr().out.splitlines()]
    assert states[:3] == [["measure", "teacher"], ["done", "cache"], ["measure", "student"]]
    assert states[3] == ["to", "do", "probe"]
    missing = pipeline.finished(other, workdir, splits).missing
    assert {m["stage"]: m["why"] for m in missing} == {
        "teacher": "measured by other scores",
        "student": "measured by other scores",
        "probe": "not done",
    }
    second, kept, lines = done(other, others)
    assert kept == written
    for name in ("teacher", "student"):
        assert f"{name} (seed 0): done before, measured by other scores" in lines
        for old, new in zip(first[name]["rows"], second[name]["rows"], strict=True):
            # Of one class alone, the first is the right one as often as the answer is.
            assert new["scores"]["first"]["value"] == old["scores"]["accuracy"]["value"]
            assert new["scores"]["accuracy"] == old["scores"]["accuracy"]
            assert (old["primary"], new["primary"]) == ("top", "accuracy")
            differ = {field for field in old if old[field] != new[field]}
            assert differ == {"scores", "primary"}
        differ = {field for field in first[name] if first[name][field] != second[name][field]}
        assert differ == {"rows", "scores", "sha256"}
    third, kept, lines = done(before, tasks)
    assert (third, kept) == (first, written)
    assert not pipeline.finished(before, workdir, splits).missing
    assert "cache (seed 0): done before, skipped" in lines
