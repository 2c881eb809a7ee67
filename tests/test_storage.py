"""Damage of every kind to a work directory: one line that says what, where and the mend, which works."""

import errno
import json
import os
import re
import shutil
import sys
from pathlib import Path

import pytest

from kdjax import main as command
from kdjax import verify
from kdjax.stages import proof

pytestmark = pytest.mark.usefixtures("little_optimization")

CONFIG = """
TRAINING = dict(steps=2, batch=32, log_every_steps=1, optimizer=dict(name="sgd", learning_rate=0.05))
VIEWS = dict(recipe="crop_flip", shift=1, flip=0.0)

def get_config(arg):
    stages = dict(
        teacher=dict(kind="finetune", encoder=dict(name="cnn", widths=[8]), views=VIEWS, **TRAINING),
        cache=dict(kind="cache", teacher="teacher", recipe=VIEWS, views=2),
        student=dict(kind="distill", cache="cache", encoder=dict(name="cnn", widths=[4]), **TRAINING),
        judge=dict(kind="evaluate", model="teacher", knn=dict(k=3), linear=None),
        file=dict(kind="export", model="student", formats=["stablehlo", "onnx"]),
    )
    data = dict(name="digits", train_split="train[:10%]", test_split="test[:10%]", labels_per_class=3)
    return dict(name="tiny", parallel="single", data=data, stages=stages)
"""
STAGES = ("teacher", "cache", "student", "judge", "file")


class Place:
    """A work directory, and the command line on it."""

    def __init__(self, workdir: Path, config: Path, monkeypatch, capsys):
        self.workdir, self.config = workdir, config
        self._patch, self._capsys = monkeypatch, capsys

    def kdjax(self, *args, workdir=None):
        """`(exit status, lines on stderr that are not of a stage)`."""
        given = (f"--config={self.config}", f"--workdir={workdir or self.workdir}", *args)
        self._patch.setattr(sys, "argv", ["kdjax", *given])
        self._capsys.readouterr()
        status = 0
        try:
            command.run()
        except SystemExit as stop:
            status = stop.code
        self.said = self._capsys.readouterr().err.splitlines()
        return status, [line for line in self.said if line.startswith("kdjax: ")]

    def verify(self):
        """`(exit status, {stage: line})`."""
        self._capsys.readouterr()
        status = verify.main([str(self.workdir)])
        lines = self._capsys.readouterr().out.splitlines()
        return status, {line.split()[1].split("-seed")[0]: line for line in lines[:-1]}

    def folder(self, stage: str) -> Path:
        (found,) = self.workdir.glob(f"stages/{stage}-seed*")
        return found

    def unfinished(self, stage: str) -> Path:
        """Its folder, as it is when a run was stopped before the last move."""
        folder = self.folder(stage)
        (folder / "manifest.json").unlink()
        return folder

    def report(self):
        return json.loads((self.workdir / "report.json").read_text())


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """`(config, work directory)` of a finished run."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "tiny.py").write_text(CONFIG)
    command.main(["kdjax", f"--config={folder / 'tiny.py'}", f"--workdir={folder / 'run'}"])
    return folder / "tiny.py", folder / "run"


@pytest.fixture
def place(finished, tmp_path, monkeypatch, capsys):
    config, workdir = finished
    shutil.copytree(workdir, tmp_path / "run")
    return Place(tmp_path / "run", config, monkeypatch, capsys)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }


def cut(path: Path):
    path.write_bytes(path.read_bytes()[:-7])


def flip(path: Path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def loop(path: Path):
    path.unlink()
    path.symlink_to(path.name)


def directory(path: Path):
    path.unlink()
    path.mkdir()


def largest(folder: Path) -> Path:
    return max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: (p.stat().st_size, p))


def edit(change):
    """Changes the manifest, which is then spelt and sealed as a run does it."""

    def damage(folder: Path):
        manifest = json.loads((folder / "manifest.json").read_text())
        change(manifest)
        (folder / "manifest.json").write_bytes(proof.spell(manifest))

    return damage


def unsealed(folder: Path):
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["rows"][0]["accuracy"] = 0.999
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1))


def older(folder: Path):
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["files"], manifest["sha256"]
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1))


def manifest(damage):
    return lambda folder: damage(folder / "manifest.json")


def inner(name, damage):
    return lambda folder: damage(folder / name)


def main_array(damage):
    return lambda folder: damage(largest(folder / "variables"))


def of_another_model(folder: Path):
    (teacher,) = folder.parent.glob("teacher-*")
    shutil.rmtree(folder / "variables")
    shutil.copytree(teacher / "variables", folder / "variables")


def a_file(folder: Path):
    shutil.rmtree(folder)
    folder.write_text("")


def a_loop(folder: Path):
    shutil.rmtree(folder)
    folder.symlink_to(folder.name)


CHUNK = "cache/teacher_logits/c/1/0/0"

# Of a stage that is finished: `stage, damage, what the line says after the folder`.
DAMAGE = {
    "manifest_truncated": ("student", manifest(cut), "manifest.json is no JSON"),
    "manifest_empty": (
        "student",
        manifest(lambda p: p.write_bytes(b"")),
        "manifest.json is empty",
    ),
    "manifest_garbage": (
        "student",
        manifest(lambda p: p.write_bytes(bytes(range(256)))),
        "manifest.json is no JSON",
    ),
    "manifest_utf16": (
        "student",
        manifest(lambda p: p.write_bytes(b"\xff" + p.read_text().encode("utf-16"))),
        "manifest.json is no JSON",
    ),
    "manifest_list": (
        "student",
        manifest(lambda p: p.write_text("[]")),
        "manifest.json is no JSON object",
    ),
    "manifest_directory": ("student", manifest(directory), "manifest.json: a directory is where"),
    "manifest_loop": ("student", manifest(loop), "manifest.json: symbolic links lead in a circle"),
    "manifest_of_another": (
        "student",
        edit(lambda m: m.update(fingerprint="0123456789abcdef")),
        "manifest.json is of fingerprint '0123456789abcdef', expected ",
    ),
    "manifest_edited": ("student", unsealed, "manifest.json is not what was written"),
    "manifest_older": ("student", older, "manifest.json lists no files"),
    "export_missing": (
        "file",
        inner("student.onnx", Path.unlink),
        "student.onnx is missing, expected ",
    ),
    "export_truncated": ("file", inner("student.onnx", cut), "student.onnx has "),
    "export_changed": (
        "file",
        inner("student.stablehlo", flip),
        "student.stablehlo has SHA-256 ",
    ),
    "export_directory": (
        "file",
        inner("student.onnx", directory),
        "student.onnx: a directory is where a file must be",
    ),
    "export_loop": ("file", inner("student.onnx", loop), "student.onnx: symbolic links lead"),
    "variables_missing": (
        "teacher",
        lambda folder: shutil.rmtree(folder / "variables"),
        "variables/_CHECKPOINT_METADATA is missing",
    ),
    "variables_metadata_missing": (
        "teacher",
        inner("variables/_METADATA", Path.unlink),
        "variables/_METADATA is missing",
    ),
    "variables_truncated": ("teacher", main_array(cut), "variables/"),
    "variables_changed": ("teacher", main_array(flip), "variables/"),
    "variables_of_another_model": ("student", of_another_model, "variables/"),
    "chunk_missing": ("cache", inner(CHUNK, Path.unlink), f"{CHUNK} is missing"),
    "chunk_changed": ("cache", inner(CHUNK, flip), f"{CHUNK} has SHA-256"),
    "cache_manifest": ("cache", inner("cache/manifest.json", cut), "cache/manifest.json has "),
    "log_truncated": ("student", inner("metrics.jsonl", cut), "metrics.jsonl has "),
    "log_missing": ("student", inner("metrics.jsonl", Path.unlink), "metrics.jsonl is missing"),
    "features_truncated": ("judge", inner("features_train.npy", cut), "features_train.npy has "),
    "folder_is_a_file": ("judge", a_file, "a file is where the folder of a stage must be"),
    "folder_is_a_loop": ("judge", a_loop, "manifest.json: symbolic links lead in a circle"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_what_is_done_and_not_whole_is_refused(kind, place):
    """With a line of its own, nothing touched, and by `verify`, too; exit status 2, then 1."""
    stage, damage, words = DAMAGE[kind]
    folder = place.folder(stage)
    damage(folder)
    before = contents(place.workdir)
    status, lines = place.kdjax()
    assert (status, len(lines), len(place.said)) == (2, 1, 1), place.said
    assert lines[0].startswith(f"kdjax: {folder}: {words}"), lines[0]
    assert lines[0].endswith(f"; delete {folder} and run the same command again")
    status, lines = place.kdjax("--dry_run")
    assert (status, len(lines)) == (2, 1)
    status, verdicts = place.verify()
    assert status == 1
    assert [name for name, line in verdicts.items() if not line.startswith("whole")] == [stage]
    assert verdicts[stage].startswith(f"damaged       {folder.name}: "), verdicts[stage]
    assert words[:20] in verdicts[stage] or kind == "manifest_of_another"
    assert contents(place.workdir) == before


def test_a_whole_work_directory_is_whole(place):
    before = contents(place.workdir)
    status, verdicts = place.verify()
    assert (status, set(verdicts)) == (0, set(STAGES))
    assert all(line.startswith("whole") for line in verdicts.values())
    assert contents(place.workdir) == before
