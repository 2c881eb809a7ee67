"""Spoken words, so to speak, through the line: samples go in, and files take samples."""

import json
import wave

import jax
import numpy as np
import pytest
from etils import epath

from kdjax import config, parse, pipeline
from kdjax.artifacts import Artifact
from kdjax.artifacts.model import load
from kdjax.commands import latency
from kdjax.commands.report import write_report
from kdjax.contexts import Splits
from kdjax.export import load_onnx
from kdjax.types import BadInput

RATE, N = 1000, 400
SEEN = {
    "recipe": "waveform",
    "shift": 40,
    "gain": 6.0,
    "time_mask": 40,
    "noise": 20.0,
    "speed": 1.05,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A high and a low tone with noise, 60 of each, 24 of them to test on."""
    root, random = tmp_path_factory.mktemp("words"), np.random.default_rng(0)
    for i in range(120):
        split, word = ("test" if i < 24 else "train"), ("low", "high")[i % 2]
        hertz = random.uniform(70, 130) if word == "low" else random.uniform(250, 350)
        at = np.arange(random.integers(250, 500)) / RATE
        samples = 8000 * np.sin(2 * np.pi * hertz * at) + 400 * random.normal(size=len(at))
        path = root / split / word / f"{i}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        with wave.open(str(path), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(RATE)
            file.writeframes(samples.astype("<i2").tobytes())
    return root


def run_of(folder):
    encoder = {
        "name": "log_mel",
        "rate": RATE,
        "window": 64.0,
        "hop": 32.0,
        "bands": 12,
        "low": 20.0,
        "net": {"name": "cnn", "widths": [8, 16]},
    }
    training = {
        "steps": 40,
        "batch": 32,
        "optimizer": {"name": "adamw", "learning_rate": 1e-2},
        "log_every_steps": 20,
    }
    stages = {
        "teacher": {"kind": "finetune", "encoder": encoder, "views": SEEN, **training},
        "cache": {"kind": "cache", "teacher": "teacher", "recipe": SEEN, "views": 2},
        "student": {
            "kind": "distill",
            "cache": "cache",
            "encoder": {**encoder, "cepstrum": 8, "net": {"name": "cnn", "widths": [8, 8]}},
            **training,
        },
        "small": {"kind": "shrink", "model": "student", "sparsity": 0.25, "examples": 64},
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
    source = {"kind": "recordings", "root": str(folder), "rate": RATE, "seconds": N / RATE}
    fields = {"name": "words", "data": {"name": "words", "source": source}, "parallel": "single"}
    return parse.parse(config.Run, {**fields, "stages": stages})


def test_a_network_has_the_rate_of_the_recordings(folder):
    run = parse.plain(run_of(folder))
    run["stages"]["student"]["encoder"]["rate"] = 999
    with pytest.raises(BadInput) as caught:
        parse.parse(config.Run, run, "config")
    assert str(caught.value).startswith(
        "config.stages.student.encoder.rate: 999 samples a second, and recordings have 1000; give 1000"
    )


def test_what_cannot_be_given_in_pieces_is_said_before_anything_runs(folder, tmp_path):
    run = parse.plain(run_of(folder))
    run["stages"]["file"]["formats"] = [{"name": "onnx", "streaming": True}]
    run = parse.parse(config.Run, run, "config")
    splits = Splits(run.data)
    tasks = pipeline.plan(run, epath.Path(tmp_path), splits, only=["file"])
    said = r"^config.stages.file.formats\[0\].streaming: small's encoder.range: 50 dB below the .* give"
    with pytest.raises(BadInput, match=said):
        pipeline.check(run, tasks, splits)


# Of recordings of their own lengths: below.
@pytest.mark.thorough
def test_sound_through_the_whole_line(folder, tmp_path):
    run, workdir = run_of(folder), epath.Path(tmp_path)
    splits = Splits(run.data)
    tasks = pipeline.plan(run, workdir, splits)
    pipeline.execute(run, tasks, splits)
    write_report(run, workdir, splits, command="kdjax")
    report = json.loads((tmp_path / "report.json").read_text())
    scores = {row["stage"]: row["scores"]["accuracy"]["value"] for row in report["rows"]}
    for name in ("teacher", "student", "small.onnx", "int8.onnx"):
        assert scores[name] > 0.75, scores  # chance is a half
    assert report["run"]["caches"]["cache"]["asked"] == 2 * 96
    done = {task.name: Artifact.open(task.folder, task.stage) for task in tasks}
    spec, variables = load(done["small"], field="here")
    assert spec.widths  # a channel of it is gone
    (audio,) = splits.test_inputs.values()
    live = np.asarray(jax.jit(spec.predict)(variables, {"audio": audio}))
    model = load_onnx(done["file"].folder / "small.onnx", threads=1)
    for batch in (1, 5):
        np.testing.assert_allclose(model(audio[:batch]), live[:batch], rtol=1e-3, atol=1e-4)
    assert np.isfinite(model(np.zeros((1, N), np.int16))).all()


def ragged_of(folder):
    """An LSTM in both directions, and a smaller one in one; recordings are as long as they are."""
    run = parse.plain(run_of(folder))
    source = {"kind": "recordings", "root": str(folder), "rate": RATE, "longest": 0.5}
    stages, spectra = run["stages"], {**run["stages"]["teacher"]["encoder"], "cepstrum": None}
    both = {**spectra, "net": {"name": "lstm", "widths": [16], "bidirectional": True}}
    plain = {"recipe": "eval"}
    stages["teacher"] |= {"encoder": both, "views": plain}
    stages["cache"] |= {"recipe": plain, "views": 1}
    one = {**spectra, "range": None, "running": True, "net": {"name": "lstm", "widths": [16, 12]}}
    stages["student"] |= {"encoder": one}
    stages["pieces"] = {
        **stages["file"],
        "formats": [{"name": "onnx", "streaming": True}],
    }
    stages["int8"] |= {"rules": [{"activations": "dynamic", "pattern": ".*"}]}
    data = {"name": "words", "source": source, "buckets": {"audio": [300, 400]}}
    fields = {"name": "words", "data": data, "parallel": "single", "stages": stages}
    return parse.parse(config.Run, fields)


def timed(file, capsys, *, batch, length, seconds):
    """`kdjax latency` of a file says how long an example lasts, and the real-time factor."""
    capsys.readouterr()
    flags = ["--repeats=5", "--max_seconds=0.1", f"--batch={batch}"]
    flags += [] if length is None else [f"--length={length}"]
    assert latency.main([file, *flags]) == 0
    line = json.loads(capsys.readouterr().out)
    assert line["seconds"] == seconds
    factor = line["latency_ms_p50"] / 1e3 / (batch * seconds)
    assert line["real_time_factor"] == pytest.approx(factor, rel=1e-3)


def test_recordings_of_their_own_lengths_through_the_whole_line(folder, tmp_path, capsys):
    run, workdir = ragged_of(folder), epath.Path(tmp_path)
    splits = Splits(run.data)
    tasks = pipeline.plan(run, workdir, splits)
    pipeline.execute(run, tasks, splits)
    write_report(run, workdir, splits, command="kdjax")
    report = json.loads((tmp_path / "report.json").read_text())
    scores = {row["stage"]: row["scores"]["accuracy"]["value"] for row in report["rows"]}
    for name in ("teacher", "student", "file/small.onnx", "small.stablehlo", "int8.onnx"):
        assert scores[name] > 0.75, scores  # chance is a half
    done = {task.name: Artifact.open(task.folder, task.stage) for task in tasks}
    spec, variables = load(done["small"], field="here")
    assert any("lstm0" in path for path in spec.widths)  # units of it are gone
    given = splits.test_inputs
    live = np.asarray(jax.jit(spec.predict)(variables, given))
    for name, stage, of in (("small", "file", live), ("int8", "int8_file", None)):
        model = load_onnx(done[stage].folder / f"{name}.onnx", threads=1)
        whole = model(*given.values())
        if of is not None:
            np.testing.assert_allclose(whole, of, rtol=1e-3, atol=1e-4)
        # One of them alone, and no longer than it is.
        audio, length = (array[:1] for array in given.values())
        alone = model(audio[:, : int(length[0])], length)
        assert np.abs(alone - whole[:1]).max() < (1e-4 if of is not None else 0.1)
    (parity,) = done["pieces"].manifest["parity"]
    assert parity["accepts"].startswith("pieces of audio: int16 [1 to")
    assert parity["max_difference"] <= 1e-5 * parity["largest_output"]
    assert (done["pieces"].folder / "small.onnx").stat().length < 40_000
    # One call is timed on the longest of the test recordings.
    longest = float(splits.test.lengths["audio"].max()) / RATE
    files = [row for row in report["rows"] if row["stage"].endswith(".onnx")]
    assert {row["stage"] for row in files} == {"file/small.onnx", "pieces/small.onnx", "int8.onnx"}
    for row in report["rows"]:
        assert row["seconds"] == longest
        assert row["real_time_factor"] == pytest.approx(row["latency_ms_p50"] / 1e3 / longest)
    file = str(done["file"].folder / "small.onnx")
    timed(file, capsys, batch=2, length=300, seconds=0.3)
    timed(file, capsys, batch=2, length=None, seconds=0.5)
    timed(str(done["pieces"].folder / "small.onnx"), capsys, batch=1, length=400, seconds=0.4)
    layers = done["int8"].manifest["quantized"]["layers"]
    assert {"encoder/net/lstm0/kernel", "encoder/net/lstm0/recurrent"} <= layers.keys()
