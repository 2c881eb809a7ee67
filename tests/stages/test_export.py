"""Files of a trained model, and what is said where one cannot be made."""

import gzip
import sys

import pytest

from kdjax import evaluate, pipeline
from kdjax.artifacts import Artifact
from kdjax.export import load_litert
from kdjax.types import BadInput

pytestmark = pytest.mark.timed

_FILES = {"kind": "export", "model": "student", "formats": ["litert"]}


def _litert():
    for package in ("litert_converter", "ai_edge_litert"):
        pytest.importorskip(package, reason="needs the extra: pip install 'kdjax[litert]'")


def test_a_litert_file_is_held_against_its_model_and_timed(line):
    _litert()
    task = line.run(stages__files=_FILES, latency_threads=2)["files"]
    (row,), (parity,) = (
        Artifact.open(task.folder, task.stage).manifest[key] for key in ("rows", "parity")
    )
    file = task.folder / "student.tflite"
    assert (row["stage"], row["runtime"], row["threads"]) == (file.name, "litert:cpu", 2)
    assert row["bytes_on_disk"] == file.stat().length > 4 * row["params"]
    assert row["latency_ms_p50"] > 0
    assert (row["batch"], row["bulk_batch"]) == (1, 64)
    assert row["bulk_ms_p50"] > row["latency_ms_p50"]
    assert row["gzip_bytes"] == len(gzip.compress(file.read_bytes(), mtime=0))
    # Not less than the weights take; a runtime's own buffers come to it.
    assert row["peak_memory_bytes"] > 4 * row["params"]
    assert (parity["artifact"], parity["agreement"]) == (file.name, 1.0)
    assert parity["max_difference"] <= 1e-5 * parity["largest_output"]

    _, _, splits = line.plan()
    run = load_litert(file, threads=1)
    logits = evaluate.logits_over(run, splits.test_inputs["image"], batch=50)
    assert row["scores"]["accuracy"]["value"] == pytest.approx(
        (logits.argmax(-1) == splits.test.labels).mean()
    )


@pytest.mark.parametrize(
    ("format", "package", "line_said"),
    [
        ("litert", "litert_converter", r"LiteRT needs its extra: pip install 'kdjax\[litert\]'$"),
        ("litert", "ai_edge_litert", r"LiteRT needs its extra: pip install 'kdjax\[litert\]'$"),
        ("onnx", "jax2onnx", r"ONNX needs its extra: pip install 'kdjax\[export\]'$"),
    ],
)
def test_a_missing_extra_is_said_before_anything_is_trained(
    line, monkeypatch, capsys, format, package, line_said
):
    monkeypatch.setitem(sys.modules, package, None)  # how Python marks a module as absent
    files = {**_FILES, "formats": ["stablehlo", format]}
    run, tasks, splits = line.plan(stages__files=files, stages__student__steps=7)
    with pytest.raises(BadInput, match=line_said):
        pipeline.execute(run, tasks, splits)
    assert not any(task.folder.exists() for task in tasks if task.name in ("student", "files"))
    assert capsys.readouterr().err == ""
