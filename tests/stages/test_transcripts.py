"""Recordings with transcripts through the line: samples go in, frames come out, WER is in the report."""

import json
import wave

import jax
import numpy as np
import pytest
from etils import epath

from kdjax import config, parse, pipeline
from kdjax.artifacts import Artifact
from kdjax.artifacts.model import load
from kdjax.commands.report import write_report
from kdjax.contexts import Splits
from kdjax.evaluate import characters, error_rate, words
from kdjax.export import load_onnx
from tests import own_tasks

_PLAIN = {"recipe": "eval"}
_TRAINING = {
    "steps": 60,
    "batch": 32,
    "log_every_steps": 20,
    "optimizer": {"name": "adamw", "learning_rate": 2e-2},
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


def run_of(folder, only=None, source=None, **stages):
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
    for name, changes in stages.items():
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
    stages = {name: line[name] for name in only or line}
    return parse.parse(config.Run, {**fields, "stages": stages})


def done(run, folder):
    splits, workdir = Splits(run.data), epath.Path(folder)
    tasks = pipeline.plan(run, workdir, splits)
    pipeline.execute(run, tasks, splits)
    write_report(run, workdir, splits, command="kdjax")
    artifacts = {task.name: Artifact.open(task.folder, task.stage) for task in tasks}
    return artifacts, json.loads((folder / "report.json").read_text()), splits


def test_transcripts_through_the_whole_line(folder, tmp_path):
    artifacts, report, splits = done(run_of(folder), tmp_path)
    rows = {row["stage"]: row for row in report["rows"]}
    for name in ("teacher", "student", "small", "int8", "small.onnx", "int8.onnx"):
        scores = rows[name]["scores"]
        assert rows[name]["primary"] == "wer"
        assert scores["cer"]["value"] < 0.35, (name, scores)  # all blanks are 1
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
