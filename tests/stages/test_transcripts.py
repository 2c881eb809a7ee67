"""Recordings with transcripts through the line: samples go in, frames come out, WER is in the report."""

import json
import wave

import jax
import numpy as np
import pytest
from etils import epath

from kdjax import config, parse, pipeline, stages, train
from kdjax.artifacts import Artifact
from kdjax.artifacts.model import Spec, load
from kdjax.checks import answering
from kdjax.commands.report import write_report
from kdjax.contexts import Context, Splits
from kdjax.evaluate import characters, error_rate, words
from kdjax.export import load_onnx
from kdjax.tasks import of as tasks_of
from kdjax.types import BadInput
from tests import own_tasks

_PLAIN = {"recipe": "eval"}
_SEEN = {"recipe": "waveform", "shift": 5, "speed": 1.1, "gain": 3.0, "noise": 20.0}
_NOISY = {**_SEEN, "pauses": {"noise": 20.0, "shortest": 0.04}}
_TRAINING = {
    "steps": 160,
    "batch": 32,
    "log_every_steps": 40,
    "optimizer": {
        "name": "adamw",
        "learning_rate": 1e-2,
        "schedule": {"name": "constant"},
    },
}


def encoder_of(width, **changes):
    return {"function": "tests.own_tasks:Frames", "width": width, **changes}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Tones as symbols, 96 of them to learn from and 32 to test on, in a table of transcripts."""
    root, random = tmp_path_factory.mktemp("tones"), np.random.default_rng(0)
    lines = ["path\ttext"]
    for i in range(128):
        split = "test" if i < 32 else "train"
        text, samples = own_tasks.tones(random)
        lines.append(f"{split}/{i}.wav\t{' '.join(text)}")
        path = root / split / f"{i}.wav"
        path.parent.mkdir(exist_ok=True)
        with wave.open(str(path), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(own_tasks.RATE)
            file.writeframes(samples.astype("<i2").tobytes())
    (root / "said.tsv").write_text("\n".join(lines) + "\n")
    return root


def run_of(folder, only=None, source=None, **changed):
    line = {
        "teacher": {
            "kind": "finetune",
            "encoder": encoder_of(16),
            "views": _PLAIN,
            **_TRAINING,
        },
        "cache": {"kind": "cache", "teacher": "teacher", "recipe": _PLAIN, "views": 1},
        "student": {
            "kind": "distill",
            "cache": "cache",
            "encoder": encoder_of(12),
            "logits": {"name": "blank_selection", "around": 2},
            "temperature": 1.0,
            "kd_weight": 1.0,
            "ce_weight": 0.0,  # no transcript
            **_TRAINING,
        },
        "small": {"kind": "shrink", "model": "student", "sparsity": 0.2, "examples": 0},
        "int8": {
            "kind": "quantize",
            "model": "small",
            "float_edges": False,
            "calibration_examples": 64,
            "agreement": 0.9,
        },
        "file": {"kind": "export", "model": "small", "formats": ["onnx", "stablehlo"]},
        "int8_file": {"kind": "export", "model": "int8", "formats": ["onnx"], "agreement": 0.9},
    }
    for name, changes in changed.items():
        line[name] = {**line.get(name, {}), **changes}
    usual = {
        "kind": "recordings",
        "root": str(folder),
        "rate": own_tasks.RATE,
        "longest": own_tasks.LONGEST / own_tasks.RATE,
        "transcripts": {"files": "said.tsv", "alphabet": ["c", "a", "b"], "unit": "words"},
    }
    data = {"name": "tones", "source": source or usual, "buckets": {"audio": [500, 700]}}
    if source is not None and "seconds" in source:
        data.pop("buckets")
    fields = {"name": "tones", "data": data, "parallel": "single"}
    chosen = {name: line[name] for name in only or line}
    return parse.parse(config.Run, {**fields, "stages": chosen})


def done(run, folder):
    splits, workdir = Splits(run.data), epath.Path(folder)
    tasks = pipeline.plan(run, workdir, splits)
    pipeline.execute(run, tasks, splits)
    write_report(run, workdir, splits, command="kdjax")
    artifacts = {task.name: Artifact.open(task.folder, task.stage) for task in tasks}
    return artifacts, json.loads((folder / "report.json").read_text()), splits


def test_transcripts_through_the_whole_line(folder, tmp_path):
    changed = {"teacher": {"views": _NOISY}, "cache": {"recipe": _NOISY, "views": 2}}
    artifacts, report, splits = done(run_of(folder, **changed), tmp_path)
    rows = {row["stage"]: row for row in report["rows"]}
    for name in ("teacher", "student", "small", "int8", "small.onnx", "int8.onnx"):
        scores = rows[name]["scores"]
        assert rows[name]["primary"] == "wer"
        assert scores["wer"]["value"] < 0.1, (name, scores)  # all blanks are 1
        parts = ("insertions", "deletions", "substitutions")
        whole = sum(scores[part]["value"] for part in parts)
        np.testing.assert_allclose(scores["wer"]["value"], whole, rtol=1e-6)
    assert "WER" in (tmp_path / "report.html").read_text()
    assert report["run"]["dataset"]["alphabet"] == ["c", "a", "b"]

    spec, variables = load(artifacts["small"], field="here")
    assert spec.widths
    test = splits.test
    inputs = splits.test_inputs
    live = np.asarray(jax.jit(spec.predict)(variables, inputs))
    said = [test.target.text(row) for row in test.labels]
    heard = spec.task.transcribed(live)
    for score, cut in (("wer", words), ("cer", characters)):
        by_hand = error_rate([cut(one) for one in said], [cut(one) for one in heard])
        np.testing.assert_allclose(rows["small"]["scores"][score]["value"], by_hand)

    file = artifacts["file"]
    assert file.manifest["class_names"] == ["<blank>", "c", "a", "b"]
    import onnx

    saved = onnx.load(str(file.folder / "small.onnx"))
    metadata = {one.key: one.value for one in saved.metadata_props}
    assert json.loads(metadata["kdjax.class_names"]) == ["<blank>", "c", "a", "b"]
    model = load_onnx(file.folder / "small.onnx", threads=1)
    for row in range(4):  # one by one, without any padding, and decoded as it is
        length = int(inputs["audio_length"][row])
        found = model(
            inputs["audio"][row : row + 1, :length], inputs["audio_length"][row : row + 1]
        )
        assert found.shape[1] == length // 25 + 1
        np.testing.assert_allclose(found[0], live[row, : found.shape[1]], atol=2e-3)
        assert spec.task.transcribed(found) == [heard[row]]


def checked(run, folder):
    splits = Splits(run.data)
    pipeline.check(run, pipeline.plan(run, epath.Path(folder), splits), splits)


_OWN = {"function": "tests.own_tasks:spoken"}
_LOG_MEL = {"name": "log_mel", "rate": own_tasks.RATE, "window": 64.0, "hop": 25.0, "bands": 12}
_STUDENT = ["teacher", "cache", "student"]


def test_a_line_is_checked_before_it_runs(folder, tmp_path):
    checked(run_of(folder), tmp_path)
    of_networks = {**_LOG_MEL, "low": 20.0, "net": {"name": "lstm", "widths": [8], "pool": "none"}}
    top_k = {"signal": {"name": "top_k", "k": 2, "temperatures": [1.0]}}
    changes = {"teacher": {"encoder": of_networks}, "cache": top_k}
    checked(run_of(folder, _STUDENT, **changes), tmp_path)
    sequences = {"logits": {"name": "best_path"}, "temperature": 4.0, "live": True}
    checked(run_of(folder, _STUDENT, student=sequences), tmp_path)
    frames = {"logits": {"name": "frame_dkd", "around": 1}, "temperature": 4.0, "live": True}
    checked(run_of(folder, _STUDENT, student=frames), tmp_path)
    paths = {"student": ["encoder/Conv_1"], "teacher": ["encoder/Conv_0", "encoder/Conv_1"]}
    layers = {"features": {"layers": {"name": "distilhubert", **paths}}, "live": True}
    checked(run_of(folder, _STUDENT, student=layers), tmp_path)
    short = {**_OWN, "seconds": True}
    checked(run_of(folder, _STUDENT, source=short), tmp_path)


@pytest.mark.parametrize(
    ("source", "changed", "line"),
    [
        (
            {**_OWN, "seconds": True},
            {"teacher": {"encoder": encoder_of(8, hop=200)}},
            r"teacher\.encoder: example \d+ of tones train \(id \d+\) has a label '[abc]+' that takes "
            r"[67] positions, and the model answers at 5 of it, and \d+ more are so; give an encoder of",
        ),
        (
            _OWN,
            {"teacher": {"encoder": encoder_of(8, hop=200)}},
            r"teacher\.encoder: example \d+ of ragged tones train \(id \d+\) has a label '[abc]+' that "
            r"takes \d positions, and the model answers at \d of it, and \d+ more are so; give",
        ),
        (
            _OWN,
            {"teacher": {"encoder": encoder_of(8, hop=80), "views": {**_SEEN, "speed": 4.0}}},
            r"teacher\.encoder: example \d+ of ragged tones train \(id \d+\) has a label '[abc]+' that "
            r"takes \d positions, and the model answers at \d of its shortest view, and \d+ more are so; "
            r"give .*, or set the speed of waveform nearer to 1$",
        ),
        (
            _OWN,
            {
                "teacher": {"encoder": encoder_of(8, hop=80)},
                "cache": {"recipe": {**_SEEN, "speed": 4.0}},
                "student": {"encoder": encoder_of(8, hop=80)},
            },
            r"student\.encoder: example \d+ of ragged tones train \(id \d+\) has a label .* of its sh",
        ),
        (
            _OWN,
            {"student": {"encoder": encoder_of(8, hop=50)}},
            r"student\.cache: the teacher of cache answers at 37 frames of the longest recording, and "
            r"the student at 19: give both one hop and one stride",
        ),
        (
            _OWN,
            {"teacher": {"encoder": encoder_of(8, masked=False)}},
            r"teacher\.encoder: .* gives no mask, and audio of ragged tones train differ in length; "
            r"give \(features, mask\), or examples of one length",
        ),
        (
            {**_OWN, "seconds": True},
            {"teacher": {"encoder": {**_LOG_MEL, "net": {"name": "cnn", "widths": [8]}}}},
            r"teacher\.encoder: cnn.* gave float32 \(2, 8\) of two examples; features are floats "
            r"\[batch, frames, dim\]",
        ),
        (
            _OWN,
            {"teacher": {"encoder": {**_LOG_MEL, "net": {"name": "lstm"}}}},
            r"teacher\.encoder\.net\.pool: mean gave float32 \(2, 128\) of two examples; features are",
        ),
        (
            _OWN,
            {"teacher": {"views": _NOISY}},
            r"teacher\.views\.pauses: audio of ragged tones train does not say its rate; give from",
        ),
        (
            None,
            {"cache": {"recipe": {**_SEEN, "pauses": {"noise": 20.0, "shortest": 1.0}}}},
            r"cache\.recipe\.pauses\.below: .* train has no pause of 1 s that is 30 dB below its",
        ),
        (
            _OWN,
            {"student": {"logits": {"name": "dkd"}}},
            r"student\.logits: dkd is of whole examples, and the task is ctc; give kl, ce or mse",
        ),
        (
            _OWN,
            {"teacher": {"label_smoothing": 0.1}},
            r"teacher\.label_smoothing: it needs a class at each position, and the task is ctc; leave",
        ),
        (
            _OWN,
            {"teacher": {"labels_per_class": 3}},
            r"teacher\.labels_per_class: the labels of ragged tones train are transcripts of up to 4 of "
            r"3 characters, and it counts",
        ),
    ],
)
def test_what_is_refused_in_one_line_before_anything_runs(source, changed, line, folder, tmp_path):
    with pytest.raises(BadInput, match=f"^config.stages.{line}") as caught:
        checked(run_of(folder, _STUDENT, source=source, **changed), tmp_path)
    assert "\n" not in str(caught.value)


def test_models_of_one_description_are_asked_for_their_positions_once(folder, compiled):
    """Students that differ in their losses alone: it is compiled for the first of them."""
    run = run_of(folder, source=_OWN)
    splits = Splits(run.data)
    dataset = splits.train
    said = {
        "encoder": parse.parse(config.Encoder, encoder_of(13), ""),  # which no other test has
        "inputs": splits.inputs,
        "task": tasks_of(dataset),
    }
    one, again = (answering.positions(Spec(**said), dataset, dataset.lengths) for _ in range(2))
    np.testing.assert_array_equal(one, again)
    assert len(compiled) == 1
    other = {**said, "encoder": parse.parse(config.Encoder, encoder_of(13, hop=12), "")}
    more = answering.positions(Spec(**other), dataset, dataset.lengths)
    assert (more > one).all()


def test_a_transcript_that_has_a_path_no_more_is_named_by_its_step_and_its_id(folder, tmp_path):
    """An encoder that leaves frames out as it trains: what no check before can see."""
    run = run_of(
        folder,
        ["teacher"],
        source=_OWN,
        teacher={"encoder": encoder_of(8, function="tests.own_tasks:Losing"), "steps": 3},
    )
    splits = Splits(run.data)
    tasks = pipeline.plan(run, epath.Path(tmp_path), splits)
    with pytest.raises(train.Diverged, match=r"step 1: loss/ctc is infinite.*--replay_step=1"):
        pipeline.execute(run, tasks, splits)
    (task,) = tasks
    context = Context(
        run, "teacher", 0, task.folder, {}, splits, train.choose("single"), replay_step=1
    )
    with pytest.raises(train.Replayed) as caught:
        stages.run(context, run.stages["teacher"])
    (named,) = [
        line for line in caught.value.lines if line.startswith("loss/ctc is not finite for")
    ]
    ids = {
        int(word) for word in named.removeprefix("loss/ctc is not finite for the ids ").split(", ")
    }
    least = tasks_of(splits.labelled(0)).least_positions(splits.labelled(0).labels)
    assert ids <= {int(id) for id in splits.labelled(0).ids[least > 2]}
    assert ids


# Of any answer at positions: tests/stages/test_own_tasks.py.
@pytest.mark.thorough
def test_decoupled_frames_are_alike_from_a_cache_and_from_a_live_teacher(folder, tmp_path):
    """Of views that differ in length, padded to what their batch asks for."""
    short = {"steps": 6, "log_every_steps": 1}
    taught = {**short, "logits": {"name": "frame_dkd"}, "temperature": 2.0}
    weights = {"kd_weight": 1.0, "ce_weight": 0.0}
    run = run_of(
        folder,
        ["teacher", "start", "cache", "student", "asked"],
        teacher=short,
        start={
            "kind": "finetune",
            "encoder": encoder_of(12),
            "views": _PLAIN,
            **_TRAINING,
            **short,
        },
        cache={"recipe": _NOISY, "views": 2},
        student={**taught, "encoder": None, "start_from": "start"},
        asked={
            "kind": "distill",
            "cache": "cache",
            "start_from": "start",
            "live": True,
            **_TRAINING,
            **taught,
            **weights,
        },
    )
    artifacts, _, _ = done(run, tmp_path)
    cached, live = (
        (artifacts[name].folder / "metrics.jsonl").read_text().splitlines()
        for name in ("student", "asked")
    )
    assert len(cached) == len(live) == 6
    for step, other in zip(map(json.loads, cached), map(json.loads, live), strict=True):
        np.testing.assert_allclose(step["loss/kd"], other["loss/kd"], rtol=0, atol=1e-6)
        assert step["loss/kd"] > 1e-3


# The line is that of the test above; the loss, tests/losses/test_transcripts.py.
@pytest.mark.thorough
def test_an_lstm_learns_the_best_paths_of_a_teacher(folder, tmp_path):
    """Without transcripts, from logits asked live; its files take recordings of any length."""
    net = {"name": "lstm", "widths": [24], "pool": "none"}
    run = run_of(
        folder,
        ["teacher", "cache", "student", "int8", "file", "int8_file"],
        student={
            "encoder": {**_LOG_MEL, "low": 20.0, "net": net},
            "logits": {"name": "best_path"},
            "temperature": 4.0,
            "live": True,
        },
        int8={"model": "student", "rules": [{"activations": "dynamic", "pattern": ".*"}]},
        file={"model": "student"},
    )
    artifacts, report, splits = done(run, tmp_path)
    rows = {row["stage"]: row for row in report["rows"]}
    for name in ("teacher", "student", "int8", "student.onnx", "student.stablehlo", "int8.onnx"):
        assert rows[name]["scores"]["wer"]["value"] < 0.1, (name, rows[name]["scores"])
    log = (artifacts["student"].folder / "metrics.jsonl").read_text().splitlines()
    assert json.loads(log[-1])["loss/kd"] < 0.5
    layers = artifacts["int8"].manifest["quantized"]["layers"]
    assert any("lstm0" in name for name in layers)
    model = load_onnx(artifacts["file"].folder / "student.onnx", threads=1)
    spec, variables = load(artifacts["student"], field="here")
    live = np.asarray(jax.jit(spec.predict)(variables, splits.test_inputs))
    audio, length = (array[:1] for array in splits.test_inputs.values())
    alone = model(audio[:, : int(length[0])], length)
    np.testing.assert_allclose(alone[0], live[0, : alone.shape[1]], atol=2e-3)
