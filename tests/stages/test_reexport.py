"""Exported files written again: the same logits, at once or not at all."""

import datetime
import json
import shutil

import jax
import numpy as np
import pytest
from etils import epath

from kdjax import main, stages
from kdjax.export import load_onnx, load_stablehlo
from kdjax.reexport import reexport
from kdjax.types import BadInput

_FILES = {"kind": "export", "model": "student", "formats": ["stablehlo", "onnx"]}


def _loaded(folder):
    return load_stablehlo(folder / "student.stablehlo"), load_onnx(
        folder / "student.onnx", threads=1
    )


@pytest.fixture
def exported(line, tmp_path):
    """A work directory of its own with an export, its report, and the folder of the files."""
    run, tasks, splits = line.plan(stages__files=_FILES)
    line.run(stages__files=_FILES)
    main.write_report(run, line.workdir, splits, command="kdjax")
    workdir = epath.Path(tmp_path) / "a copy"
    shutil.copytree(line.workdir, workdir)
    folder = next(task.folder.name for task in tasks if task.name == "files")
    return workdir, workdir / "stages" / folder


def test_the_files_are_written_again_and_say_until_when(exported, capsys):
    workdir, folder = exported
    images = np.random.default_rng(3).integers(0, 256, (5, 8, 8, 1), np.uint8)
    before = [np.asarray(run(images)) for run in _loaded(folder)]
    manifest = json.loads((folder / "manifest.json").read_text())
    stale = {**manifest, "parity": [dict(entry) for entry in manifest["parity"]]}
    for entry in stale["parity"]:
        entry["format"] = "of old"
        entry.pop("promised_until", None)
    # A file of a version that this jax does not know, as it says.
    (folder / "student.stablehlo").write_bytes(b"from another day")
    stages.finish(folder, stale)

    assert reexport(workdir) == 0
    said = capsys.readouterr().out
    assert "student.stablehlo: written again" in said
    assert "the old file cannot be read here" in said
    for run, expected in zip(_loaded(folder), before, strict=True):
        np.testing.assert_array_equal(np.asarray(run(images)), expected)
    today = datetime.date.today()
    until = {(today + datetime.timedelta(days=180 + i)).isoformat() for i in (-1, 0)}
    for place in (folder / "manifest.json", workdir / "report.json"):
        entries = {e["artifact"]: e for e in json.loads(place.read_text())["parity"]}
        assert entries["student.stablehlo"]["promised_until"] in until
        assert jax.__version__ in entries["student.stablehlo"]["reads"]
        assert entries["student.onnx"]["format"] == "ONNX opset 21, IR version 10"
        assert entries["student.onnx"]["accepts"] == "uint8 images, any of 1 or more"
    assert entries["student.stablehlo"]["promised_until"] in (workdir / "report.html").read_text()
    assert not (folder / ".reexport").exists()
    again = (folder / "student.onnx").read_bytes()
    assert reexport(workdir) == 0
    assert (folder / "student.onnx").read_bytes() == again


def test_what_fails_is_named_and_leaves_the_old_files(exported, capsys):
    workdir, folder = exported
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    # Other tests may have left other students in the same place.
    made_of = json.loads((folder / "manifest.json").read_text())["upstream"]["student"]
    source = workdir / "stages" / f"student-seed0-{made_of[:8]}"
    (source / "manifest.json").rename(source / "manifest.away")
    assert reexport(workdir) == 1
    assert "the model that it was made of is gone" in capsys.readouterr().err
    assert {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()} == before


def test_a_place_without_exports_is_refused(tmp_path):
    with pytest.raises(BadInput, match="is no work directory of a run"):
        reexport(tmp_path)
    (tmp_path / "stages").mkdir()
    with pytest.raises(BadInput, match="has no finished export"):
        reexport(tmp_path)
