"""Exported files written again: the same logits, at once or not at all."""

import datetime
import json
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import jax
import numpy as np
import pytest
from etils import epath

from kdjax import artifacts
from kdjax.commands.reexport import reexport
from kdjax.commands.report import write_report
from kdjax.export import load_onnx, load_stablehlo
from kdjax.types import BadInput

_ROOT = Path(__file__).parents[2]
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
    write_report(run, line.workdir, splits, command="kdjax")
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
    artifacts.finish(folder, stale)

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
        assert entries["student.onnx"]["accepts"] == "image: uint8 [8, 8, 1]; any of 1 or more"
    assert entries["student.stablehlo"]["promised_until"] in (workdir / "report.html").read_text()
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        manifest["files"] | {"manifest.json": 0}
    )
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


@pytest.mark.parametrize("said", ["[" * 100_000, "{}", '{"run": {}, "rows": []}', "[]", "\\x00"])
def test_a_report_that_is_none_is_refused_before_a_file_is_written(exported, said):
    workdir, folder = exported
    (workdir / "report.json").write_text(said)
    before = {path.name: path.stat().mtime for path in folder.iterdir()}
    with pytest.raises(BadInput, match=r"report\.json: not a report of kdjax; remove it"):
        reexport(workdir)
    assert {path.name: path.stat().mtime for path in folder.iterdir()} == before


def test_a_place_without_exports_is_refused(tmp_path):
    with pytest.raises(BadInput, match="is no work directory of a run"):
        reexport(tmp_path)
    (tmp_path / "stages").mkdir()
    with pytest.raises(BadInput, match="has no finished export"):
        reexport(tmp_path)


# One process that imports once and forks before jax has begun anything. Each child is killed at another
# step, which is whatever asks the operating system to change a file or a folder.
_KILLS = """
    import os, signal, sys, warnings
    from etils import epath
    from kdjax import artifacts
    from kdjax.artifacts import proof

    warnings.simplefilter("ignore")
    folder, beside = epath.Path("stage"), epath.Path("stage/.new.part")
    old = {f"model{i}.onnx": bytes([i]) * (1000 + i) for i in range(3)}
    new = {name: bytes(1200 + i) for i, name in enumerate(old)}

    def begin():
        os.makedirs(beside)
        for name, content in new.items():
            (beside / name).write_bytes(content)

    def switch(kill_at):
        steps = 0

        def step(event, args):
            nonlocal steps
            written = event == "open" and isinstance(args[1], str) and set(args[1]) & set("wxa+")
            if written or event in ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link"):
                steps += 1
                if steps == kill_at:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(step)
        artifacts.replace(folder, {"stage": "files", "said": "new"}, beside)

    def in_a_child(call, *args):
        if not (child := os.fork()):
            status = 1
            try:
                call(*args)
                status = 0
            finally:
                os._exit(status)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    def content():
        return {name: (folder / name).read_bytes() for name in old}

    os.makedirs(folder)
    for name, wanted in old.items():
        (folder / name).write_bytes(wanted)
    assert in_a_child(artifacts.finish, folder, {"stage": "files", "said": "old"}) == 0
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    seen = []
    for kill_at in range(1, 100):
        begin()
        status = in_a_child(switch, kill_at)
        manifest, there = proof.prove(folder, full=True), content()
        assert manifest is not None, "whole"
        assert all(there[name] in (old[name], new[name]) for name in old), there
        changed = sum(there[name] == new[name] for name in old)
        seen.append(f"{manifest['said']} {changed}")
        # Damage is still seen, be it of what gives way.
        (folder / "model1.onnx").write_bytes(b"x" * len(there["model1.onnx"]))
        try:
            proof.prove(folder)
            raise AssertionError("damage was not seen")
        except proof.Damaged:
            (folder / "model1.onnx").write_bytes(there["model1.onnx"])
        if status == 0:
            break
        assert status == -signal.SIGKILL, status
        # The same again comes to its end, killed once more or not.
        begin() if not beside.exists() else [(beside / n).write_bytes(c) for n, c in new.items()]
        in_a_child(switch, kill_at - 1 if kill_at % 2 else 10**6)
        proof.prove(folder, full=True)
        begin() if not beside.exists() else [(beside / n).write_bytes(c) for n, c in new.items()]
        assert in_a_child(switch, 10**6) == 0
        manifest = proof.prove(folder, full=True)
        assert content() == new and manifest["said"] == "new" and proof.REPLACING not in manifest
        assert sorted(p.name for p in folder.iterdir()) == sorted([*old, "manifest.json"])
        for name, wanted in before.items():  # as it was, for the next kill
            (folder / name).write_bytes(wanted)
    print(" / ".join(seen))
"""


def test_files_give_way_to_others_as_a_whole_whenever_that_is_killed(tmp_path):
    program = textwrap.dedent(_KILLS)
    found = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": os.fspath(_ROOT)},
    )
    assert found.returncode == 0, found.stderr[-2000:]
    seen = found.stdout.strip().split(" / ")
    # A kill came before, between each two moves, and after, and the last one is none.
    for moment in ("old 0", "old 1", "old 2", "old 3", "new 3"):
        assert moment in seen, seen
    assert seen[-1] == "new 3"
    assert len(seen) > 8
