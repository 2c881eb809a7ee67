"""Damage of every kind to a work directory: one line that says what, where and the mend, which works."""

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from etils import epath

from kdjax import lock
from kdjax import main as command
from kdjax.artifacts import artifact, proof
from kdjax.commands import run, verify
from kdjax.measuring import asking
from tests.compiled import HARDLY_OPTIMIZED

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
        named = re.compile(r"(?:whole|damaged|not finished|not ours) +(\w+)-seed")
        return status, {named.match(line)[1]: line for line in lines[:-1]}

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
    manifest["rows"][0]["scores"]["accuracy"]["value"] = 0.999
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


# --- the mends --------------------------------------------------------------------------------------


def remove(path: Path):
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def told_to_delete(line: str) -> Path:
    """What a line says to delete, or to move away."""
    if found := re.search(r"; delete (\S+) and run the (same command|cache stage) again", line):
        return Path(found[1])
    found = re.match(
        r"kdjax: (\S+): .*; (move it away|remove them), then run the same command", line
    )
    assert found, line
    return Path(found[1])


def same_results(place, workdir: Path):
    """Models and caches are those of the run that was never disturbed; all is whole."""
    status, verdicts = place.verify()
    assert (status, set(verdicts)) == (0, set(STAGES)), verdicts
    for stage in STAGES:
        mine = place.folder(stage)
        other = workdir / "stages" / mine.name
        found, wanted = (json.loads((f / "manifest.json").read_text()) for f in (mine, other))
        assert found.get("variables") == wanted.get("variables")
    cache = "stages", place.folder("cache").name, "cache"
    assert contents(place.workdir.joinpath(*cache)) == contents(workdir.joinpath(*cache))


SLOW = pytest.mark.thorough
MENDED = [
    "export_truncated",
    "features_truncated",
    "chunk_changed",
    "folder_is_a_file",
    *(pytest.param(kind, marks=SLOW) for kind in ("manifest_older", "variables_changed")),
    *(pytest.param(kind, marks=SLOW) for kind in ("manifest_loop", "log_missing")),
]


@pytest.mark.parametrize("kind", MENDED)
def test_the_mend_that_a_line_names_works(kind, place, finished):
    stage, damage, _ = DAMAGE[kind]
    damage(place.folder(stage))
    _, (line,) = place.kdjax()
    remove(told_to_delete(line))
    status, lines = place.kdjax()
    assert (status, lines) == (0, [])
    again = [line for line in place.said if "done before, skipped" not in line]
    assert [line.split()[0] for line in again] == [stage]
    same_results(place, finished[1])


def test_a_cache_that_is_deleted_is_written_again(place, finished):
    """Of a stage whose files are all gone nothing can be lost."""
    shutil.rmtree(place.folder("cache") / "cache")
    assert place.verify()[1]["cache"].startswith("not finished")
    assert place.kdjax("--stages=cache") == (0, [])
    assert "cache (seed 0): only its manifest is left; it is run again" in place.said
    same_results(place, finished[1])


def test_a_cache_of_something_else_says_what_to_delete(place, finished):
    """What no hash finds: whole, and of another version of jax; its own mend works, too."""
    folder = place.folder("cache")
    kept = folder / "cache" / "manifest.json"
    bound = json.loads(kept.read_text())
    bound["jax"] = "0.1"
    kept.write_text(json.dumps(bound, indent=1, sort_keys=True))
    artifact.finish(epath.Path(folder), json.loads((folder / "manifest.json").read_text()))
    place.unfinished("student")
    assert place.verify()[0] == 0
    status, (line,) = place.kdjax()
    assert status == 2
    assert line.startswith(f"kdjax: teacher cache {folder / 'cache'}: jax is '0.1', expected ")
    assert told_to_delete(line) == folder
    remove(told_to_delete(line))
    assert place.kdjax() == (0, [])
    same_results(place, finished[1])


# --- while running ----------------------------------------------------------------------------------


def foreign(path: Path):
    if path.exists() or path.is_symlink():
        remove(path)
    path.write_text("foreign")


def foreign_directory(path: Path):
    if path.exists():
        remove(path)
    path.mkdir()


def garbage(path: Path):
    path.write_bytes(b"\xff\xfe{{{\n")


def full(path: Path):
    """A file that can be opened, and not written: there is no space on that device."""
    path.unlink()
    path.symlink_to("/dev/full")


def dangling(path: Path):
    remove(path)
    path.symlink_to("/nowhere/else")


def lock_of(place, stage) -> Path:
    return Path(proof.lock_of(epath.Path(place.folder(stage))))


# `damage of a work directory, giving the place that the line names; exit status; what it says then`.
OBSTACLES = {
    "log_is_a_directory": (
        lambda p: damaged(p.unfinished("teacher") / "metrics.jsonl", foreign_directory),
        1,
        "a directory is where a file must be",
    ),
    "cache_is_a_file": (
        lambda p: damaged(p.unfinished("cache") / "cache", foreign),
        1,
        "NOT_FOUND: Cannot list non-directory",
    ),
    "cache_begun_is_a_directory": (
        lambda p: damaged(p.unfinished("cache") / "cache" / "begun.json", foreign_directory),
        1,
        "a directory is where a file must be",
    ),
    "features_are_a_directory": (
        lambda p: damaged(p.unfinished("judge") / "features_train.npy", foreign_directory),
        1,
        "a directory is where a file must be",
    ),
    "export_is_a_directory": (
        lambda p: damaged(p.unfinished("file") / "student.stablehlo", foreign_directory),
        1,
        "a directory is where a file must be",
    ),
    "stage_is_a_dangling_link": (
        lambda p: damaged(p.folder("judge"), dangling),
        1,
        "something else is there",
    ),
    "stages_is_a_file": (
        lambda p: damaged(p.workdir / "stages", foreign),
        2,
        "a file is where a directory must be",
    ),
    "report_is_a_directory": (
        lambda p: damaged(p.workdir / "report.json", foreign_directory),
        1,
        "a directory is where a file must be",
    ),
    "page_is_a_directory": (
        lambda p: damaged(p.workdir / "report.html", foreign_directory),
        1,
        "a directory is where a file must be",
    ),
    "lock_is_a_directory": (
        lambda p: damaged(lock_of(p, "judge"), foreign_directory, p.unfinished("judge")),
        1,
        "a directory is where a file must be",
    ),
    "report_lock_is_a_directory": (
        lambda p: damaged(p.workdir / ".report.lock", foreign_directory),
        1,
        "a directory is where a file must be",
    ),
}


def damaged(path: Path, damage, *_) -> Path:
    damage(path)
    return path


@pytest.mark.parametrize("kind", OBSTACLES)
def test_what_is_in_the_way_is_named_and_what_is_whole_stays_so(kind, place):
    """One line with the path; once that is out of the way the same command ends well."""
    damage, status, words = OBSTACLES[kind]
    where = damage(place)
    before = {f: (f / "manifest.json").read_bytes() for f in place.workdir.glob("stages/*-seed*")
              if (f / "manifest.json").is_file()}  # fmt: skip
    found, lines = place.kdjax()
    assert (found, len(lines)) == (status, 1), place.said
    assert lines[0].startswith(f"kdjax: {where}: {words}"), lines[0]
    for folder, content in before.items():
        assert (folder / "manifest.json").read_bytes() == content
    if kind == "stages_is_a_file":
        return  # everything would have to be done again
    remove(where)
    assert place.kdjax() == (0, [])
    assert place.verify()[0] == 0


def test_what_is_no_log_is_left_out_with_a_word(place):
    path = damaged(place.unfinished("teacher") / "metrics.jsonl", garbage)
    assert place.kdjax() == (0, [])
    assert any(str(path) in line and "not of this log" in line for line in place.said), place.said
    assert place.verify()[0] == 0


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
@pytest.mark.parametrize("name", ["student.stablehlo", "student.onnx"])
def test_a_full_disk(name, place):
    path = place.unfinished("file") / name
    full(path)
    status, (line,) = place.kdjax()
    assert status == 1
    assert line.startswith(f"kdjax: {path.parent}")
    assert (
        "no space is left there; make room, then run the same command again: what is done" in line
    )
    path.unlink()  # room is made
    assert place.kdjax() == (0, [])


@pytest.mark.parametrize(
    ("make", "status", "words"),
    [
        (foreign, 2, "--workdir: {p} is a file; name a directory"),
        (lambda p: (foreign(p), p / "below" / "it")[1], 1, "{p}: a file is where a directory must"),
        (lambda p: p.symlink_to(p.name), 2, "--workdir: '{p}': symbolic links lead in a circle"),
        (lambda p: p.parent / ("n" * 256), 2, "--workdir: '{p.parent}/nn"),
        (lambda p: f"{p}\0", 2, "--workdir: '{p}\\x00': embedded null byte; name another"),
    ],
    ids=["file", "below_a_file", "loop", "too_long", "nul"],
)
def test_what_no_work_directory_can_be(
    make, status, words, finished, tmp_path, monkeypatch, capsys
):
    path = tmp_path / "w"
    workdir = make(path) or path
    place = Place(path, finished[0], monkeypatch, capsys)
    found, lines = place.kdjax(workdir=workdir)
    assert (found, len(lines), len(place.said)) == (status, 1, 1), place.said
    assert lines[0].startswith("kdjax: " + words.format(p=path)), lines[0]


def test_what_killed_runs_left_half_written_is_taken_away(place):
    folder = place.unfinished("judge")
    (folder / ".0123.part").write_bytes(b"half")
    (folder / "variables.orbax-checkpoint-tmp-12" / "d").mkdir(parents=True)
    before = contents(place.folder("file"))
    assert place.kdjax() == (0, [])
    assert sorted(p.name for p in folder.iterdir()) == [
        "features_test.npy",
        "features_train.npy",
        "manifest.json",
    ]
    assert contents(place.folder("file")) == before


def test_kept_features_with_a_changed_byte_are_made_anew(place):
    folder = place.unfinished("judge")
    before = (folder / "features_train.npy").read_bytes()
    flip(folder / "features_train.npy")
    assert place.kdjax() == (0, [])
    assert (folder / "features_train.npy").read_bytes() == before


def test_a_work_directory_that_disappears(place, monkeypatch):
    folder = place.unfinished("judge")
    for path in folder.glob("features_*.npy"):
        path.unlink()
    kept = asking.kept

    def taken_away(path, *args):
        found = kept(path, *args)
        if path.name == "features_train.npy":  # the stage is under way
            shutil.rmtree(place.workdir)
        return found

    monkeypatch.setattr(asking, "kept", taken_away)
    status, lines = place.kdjax()
    assert (status, len(lines)) == (1, 1), place.said
    assert lines[0].startswith(f"kdjax: {place.workdir}/stages")
    assert "was taken away" in lines[0]


@pytest.mark.parametrize("left", [False, True], ids=["the_folder", "one_file"])
def test_what_disappears_when_all_is_done(left, place, monkeypatch):
    """The report is without it, which is no success."""
    folder, write = place.folder("cache"), run.write_report

    def taken_away(*args, **kwargs):
        if left:
            largest(folder).unlink()
        else:
            shutil.rmtree(folder)
        return write(*args, **kwargs)

    monkeypatch.setattr(run, "write_report", taken_away)
    status, lines = place.kdjax()
    assert (status, len(lines)) == (1, 1), place.said
    assert lines[0].startswith(f"kdjax: {folder}: it was done, and was taken away or changed")
    monkeypatch.undo()
    if left:  # what is not whole is the user's to take away
        shutil.rmtree(folder)
    assert place.kdjax() == (0, [])


def test_a_process_whose_files_cannot_grow_ends_with_one_line(place):
    """No traceback of any thread, no waiting for one; exit status 1, and what is done stays done."""
    place.unfinished("teacher")
    before = contents(place.folder("cache"))
    limited = ["sh", "-c", 'ulimit -f 2; exec "$@"', "sh"]  # blocks of 512 bytes
    done = subprocess.run(
        [
            *(*limited, sys.executable, "-m", "kdjax.main"),
            *(f"--config={place.config}", f"--workdir={place.workdir}"),
        ],
        env={
            **os.environ,
            **HARDLY_OPTIMIZED,
            "PYTHONWARNINGS": "ignore",
        },  # of compilations that are not kept
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[1],
        timeout=300,
        check=False,
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"kdjax: {place.folder('teacher')}")
    assert "larger than is allowed" in line
    assert contents(place.folder("cache")) == before


# --- two runs ---------------------------------------------------------------------------------------

HOLD = """
import sys, time
from kdjax import lock
lock.take(sys.argv[1])
print(1, flush=True)
time.sleep(99)
"""


def test_two_runs_at_one_task(place):
    """The second one names the first and touches nothing; it follows at once when that is killed."""
    place.unfinished("judge")
    path = lock_of(place, "judge")
    other = subprocess.Popen([sys.executable, "-c", HOLD, path], stdout=subprocess.PIPE)
    assert other.stdout.readline() == b"1\n"
    before = contents(place.workdir)
    status, lines = place.kdjax()
    assert (status, len(lines), len(place.said)) == (1, 1, 1)
    assert lines[0].startswith(f"kdjax: judge (seed 0): process {other.pid} on ")
    assert "is at it; run the same command again when it has ended, or stop it" in lines[0]
    assert place.kdjax("--dry_run") == (0, [])
    status, verdicts = place.verify()
    assert status == 0
    assert f"process {other.pid} on " in verdicts["judge"]
    assert contents(place.workdir) == before
    # Another task may be done meanwhile.
    place.unfinished("file")
    assert place.kdjax("--stages=file") == (0, [])
    other.kill()
    other.wait()
    other.stdout.close()
    assert place.kdjax() == (0, [])
    assert any(f"taken over from process {other.pid} on" in line for line in place.said)
    assert not list(place.workdir.glob("**/*.lock"))


def test_a_task_that_another_run_has_come_to_first_is_waited_for(place):
    for stage in ("teacher", "judge"):
        place.unfinished(stage)
    teacher, judge, held = lock_of(place, "teacher"), lock_of(place, "judge"), []

    def other():
        while not teacher.exists():
            time.sleep(0.005)
        with lock.held(judge, waiting=print):
            held.append(judge.exists())
            while teacher.exists():
                time.sleep(0.005)
            time.sleep(1.0)

    thread = threading.Thread(target=other)
    thread.start()
    assert place.kdjax() == (0, [])
    thread.join()
    assert held == [True]
    waiting = f"judge (seed 0): waiting for process {os.getpid()} on "
    assert any(line.startswith(waiting) for line in place.said), place.said
    assert place.verify()[0] == 0


# --- the report -------------------------------------------------------------------------------------


def test_a_report_says_what_its_cache_has_saved(place):
    (found,) = place.report()["run"]["caches"].values()
    examples = place.report()["run"]["dataset"]["train"]
    assert (found["asked"], found["read"], found["students"]) == (2 * examples, 2 * 32, 1)
    assert found["live_seconds"] <= found["asked_seconds"] > 0  # it has read less than was kept
    assert found["saved_hours"] <= 0


def test_a_part_of_a_run_does_not_shrink_its_report(place):
    before = place.report()
    assert before["run"]["not_done"] == []
    assert place.kdjax("--stages=teacher") == (0, [])
    after = place.report()
    assert after["rows"] == before["rows"]
    assert after["parity"] == before["parity"]
    assert after["run"]["wall_seconds"] == before["run"]["wall_seconds"]

    shutil.rmtree(place.folder("file"))
    assert place.kdjax("--stages=teacher") == (0, [])
    after = place.report()
    assert [row["stage"] for row in after["rows"]] == ["teacher", "student", "judge/knn"]
    assert after["run"]["not_done"] == [{"stage": "file", "seed": 0, "why": "not done"}]
    page = (place.workdir / "report.html").read_text()
    assert "Not in this report" in page
    assert (
        "Not in this report"
        not in (place.workdir / "report.html").read_text().partition("Not in")[0]
    )


def test_what_is_not_whole_is_left_out_of_the_report_and_named(place):
    cut(place.folder("file") / "student.onnx")
    assert place.kdjax("--stages=teacher") == (0, [])
    (entry,) = place.report()["run"]["not_done"]
    assert (entry["stage"], entry["seed"]) == ("file", 0)
    assert entry["why"].startswith("not whole: ")
    assert "student.onnx has " in entry["why"]
    assert "student.onnx" not in [row["stage"] for row in place.report()["rows"]]
    assert any("left out of the report" in line for line in place.said)


def test_the_report_is_of_all_seeds_that_are_done(place):
    assert place.kdjax("--config.seeds=[1]", "--stages=teacher") == (0, [])
    first = place.report()
    assert place.kdjax("--config.seeds=[0]", "--stages=teacher") == (0, [])
    second = place.report()
    assert first["rows"] == second["rows"]
    assert second["run"]["seeds"] == [0, 1]
    rows = {row["stage"]: row for row in second["rows"]}
    assert {stage: row["seeds"] for stage, row in rows.items()} == {
        "teacher": 2,
        "student": 1,
        "judge/knn": 1,
        "student.stablehlo": 1,
        "student.onnx": 1,
    }
    each = [
        json.loads((f / "manifest.json").read_text())["rows"][0]["scores"]["accuracy"]["value"]
        for f in sorted(place.workdir.glob("stages/teacher-seed*"))
    ]
    assert rows["teacher"]["scores"]["accuracy"]["per_seed"] == each
    missing = {(entry["stage"], entry["seed"]) for entry in second["run"]["not_done"]}
    assert missing == {(stage, 1) for stage in ("cache", "student", "judge", "file")}
