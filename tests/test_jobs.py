"""Stages side by side in processes of one command."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from etils import epath

from kdjax import alone, config, pipeline
from kdjax.commands import run as command
from kdjax.commands.flags import FLAGS
from kdjax.measuring.parity import StageFailed
from kdjax.pipeline import running
from kdjax.types import BadInput
from tests import picture_files
from tests.compiled import HARDLY_OPTIMIZED

ROOT = Path(__file__).parents[1]
ENVIRONMENT = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT), **HARDLY_OPTIMIZED}
CONFIG = """
def get_config(arg=None):
    small = dict(
        encoder=dict(name="cnn", widths=[2]), steps=4, batch=8, views=dict(recipe="eval"),
        optimizer=dict(name="sgd", learning_rate=0.1, schedule=dict(name="constant")),
    )
    student = {k: v for k, v in small.items() if k != "views"}
    return dict(
        name="x", seeds=[0, 1], reference="teacher", latency_seconds=0.0,
        data=dict(name="digits", train_split="train[:5%]", test_split="test[:5%]"),
        stages=dict(
            teacher=dict(small, kind="finetune"),
            cache=dict(kind="cache", teacher="teacher", recipe=dict(recipe="eval"), views=1),
            student=dict(student, kind="distill", cache="cache"),
            scratch=dict(small, kind="finetune"),
        ),
    )
"""


HALF = """
import os
cores = sorted(os.sched_getaffinity(0))
os.sched_setaffinity(0, cores[: max(1, len(cores) // 2)])
from kdjax.main import program
program()
"""
"""The program with the cores that one of two processes has: sums are rounded as there are threads."""


def started(folder, *others, program=("-m", "kdjax.main"), config=CONFIG):
    (folder / "mine.py").write_text(config)
    return subprocess.Popen(
        [
            *(sys.executable, *program),
            *(f"--config={folder / 'mine.py'}", f"--workdir={folder / 'w'}", *others),
        ],
        env=ENVIRONMENT,
        text=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def said(process):
    _, lines = process.communicate(timeout=300)
    return process.returncode, lines.splitlines()


def errors(lines):
    """Those that do not tell how far a stage is."""
    return [line for line in lines if " of 2000000, loss " not in line]


def left(folder):
    """What is the same of a stage however it was done."""
    manifests = [json.loads(path.read_text()) for path in folder.glob("w/stages/*/manifest.json")]
    return {
        (one["stage"], one["seed"]): (
            one["fingerprint"],
            one.get("variables"),
            [(row["stage"], row["scores"]) for row in one.get("rows", ())],
        )
        for one in manifests
    }


def test_side_by_side_is_one_after_the_other(tmp_path):
    """In every figure but the times; each stage is said once, and the report says how many there were."""
    both, one = tmp_path / "both", tmp_path / "one"
    for folder in (both, one):
        folder.mkdir()
    status, lines = said(started(both, "--jobs=2"))
    assert status == 0, lines
    assert said(started(one, program=("-c", HALF)))[0] == 0
    assert left(both) == left(one)
    assert len(left(both)) == 8
    done = sorted(line.partition(":")[0] for line in lines)
    names = ("cache", "scratch", "student", "teacher")
    assert done == [f"{name} (seed {seed})" for name in names for seed in (0, 1)]
    report = json.loads((both / "w" / "report.json").read_text())
    assert report["run"]["jobs"] == 2
    assert "jobs" not in json.loads((one / "w" / "report.json").read_text())["run"]
    assert "2 processes side by side" in (both / "w" / "report.html").read_text()


def test_what_is_said_of_the_data_is_said_once(tmp_path):
    for split, begin in (("train", 0), ("test", 1000)):
        picture_files.classes(tmp_path / "pictures" / split, each=4, begin=begin)
    picture_files.write(tmp_path, {"pictures/test/cat/broken.png": b"no picture"})
    source = (
        f'source=dict(kind="folder", root={str(tmp_path / "pictures")!r}, size=8, skip_broken=True)'
    )
    config = CONFIG.replace('name="digits"', f'name="mine", {source}').replace("[:5%]", "")
    status, lines = said(
        started(tmp_path, "--jobs=2", "--stages=teacher,scratch", "--seeds=0", config=config)
    )
    assert status == 0, lines
    (note,) = (line for line in lines if not line.startswith(("teacher (", "scratch (")))
    assert note.startswith("data: ")
    assert "broken.png" in note


def test_one_that_fails_stops_the_others_and_its_line_is_the_only_one(tmp_path):
    status, lines = said(
        started(
            tmp_path,
            "--jobs=2",
            "--stages=teacher,scratch",
            "--seeds=0",
            "--config.stages.scratch.optimizer.learning_rate=1e15",
            "--config.stages.scratch.steps=30",
            "--config.stages.teacher.steps=2000000",  # it never ends by itself
        )
    )
    assert status == 1
    (line,) = errors(lines)
    assert line.startswith("kdjax: config.stages.scratch: step ")
    assert not [*tmp_path.glob("w/stages/*/.lock*")]
    assert not [*tmp_path.glob("w/stages/*/manifest.json")]


# In the test of all stages side by side a student may come before its teacher, too.
@pytest.mark.thorough
def test_one_trains_beside_the_one_that_it_is_compared_with(tmp_path):
    """And waits for it before it is measured; who is at that one is asked to end, both go on later."""
    more = ["--jobs=2", "--stages=teacher,scratch", "--seeds=0"]
    process = started(tmp_path, *more, "--config.stages.teacher.steps=2000000")
    wait_for(lambda: [*tmp_path.glob("w/stages/scratch-seed0-*/variables/manifest.ocdbt")])
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert said(process)[0] == 143
    assert not [*tmp_path.glob("w/stages/*/manifest.json")]
    assert said(started(tmp_path, *more))[0] == 0
    ((_, scratch),) = [(k, v) for k, v in left(tmp_path).items() if k[0] == "scratch"]
    assert "agreement" in scratch[2][0][1]


def test_who_is_compared_says_when_nobody_is_at_the_other_any_more(tmp_path):
    stage = config.Trim(kind="trim", model="x")
    teacher, scratch = (
        pipeline.Task(name, 0, stage, name, epath.Path(tmp_path / name), (), {})
        for name in ("teacher", "scratch")
    )
    reference = running._reference(dataclasses.replace(scratch, reference=teacher))
    assert reference is not None
    with pytest.raises(StageFailed, match=r"scratch .*: teacher .* was given up .* run the same"):
        reference()


def workers_of(process):
    """Numbers of the processes that it has started."""
    path = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return [int(number) for number in path.read_text().split()]


def is_there(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def wait_for(what, seconds=120.0):
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.thorough
@pytest.mark.parametrize("who", ["asked", "a worker", "the command"])
def test_ended_from_outside_and_begun_again(tmp_path, who):
    """By a signal with one line, by the loss of a worker, and with nobody left behind."""
    steps = [f"--config.stages.{name}.steps=2000000" for name in ("teacher", "scratch")]
    process = started(tmp_path, "--jobs=2", *steps)
    wait_for(lambda: [*tmp_path.glob("w/stages/teacher-seed0-*/metrics.jsonl")])
    workers = workers_of(process)
    assert len(workers) == 2
    victim = {"asked": process.pid, "a worker": workers[0], "the command": process.pid}[who]
    os.kill(victim, signal.SIGTERM if who == "asked" else signal.SIGKILL)
    status, lines = said(process)
    wait_for(lambda: not any(map(is_there, workers)))
    if who == "asked":
        assert status == 143
        (line,) = errors(lines)
        assert line.startswith("kdjax: SIGTERM: stopped; ")
    elif who == "a worker":
        assert status == 1
        (line,) = errors(lines)
        assert "SIGKILL" in line
    else:
        assert status == -signal.SIGKILL
    assert said(started(tmp_path, "--jobs=2"))[0] == 0
    assert len(left(tmp_path)) == 8


COUNTING = """
import os, pathlib, sys, time
from kdjax import alone, config, pipeline
alone.join()
while True:
    os.write(1, b".")
    time.sleep(0.001)
"""
TIMING = """
import os, pathlib, sys, time
from kdjax import alone, config, pipeline
alone.join()
counted = pathlib.Path(sys.argv[1])
sizes = []
for _ in range(3):
    with alone.alone():
        before = counted.stat().st_size
        time.sleep(0.2)
        sizes.append(counted.stat().st_size - before)
    before = counted.stat().st_size
    while counted.stat().st_size == before:  # it goes on
        time.sleep(0.01)
print(sizes)
"""


def test_who_times_is_alone(tmp_path):
    env = {**os.environ, "PYTHONPATH": str(ROOT), "KDJAX_MEETING": str(tmp_path)}
    counted = tmp_path / "counted"
    with open(counted, "wb") as file:
        other = subprocess.Popen(
            [sys.executable, "-c", COUNTING], env=env, stdout=file, process_group=0
        )
    try:
        wait_for(lambda: counted.stat().st_size > 0)
        ended = subprocess.run(
            [sys.executable, "-c", TIMING, str(counted)],
            env=env,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
            process_group=0,
        )
    finally:
        other.kill()
        other.wait()
    assert max(json.loads(ended.stdout)) <= 1  # what it was writing as it was stopped


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_cores_are_shared(count, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {4, 0, 2, 7})
    own = [set(one["KDJAX_CORES"].split(",")) for one in alone.shares(count)]
    assert set.union(*own) == {"0", "2", "4", "7"}
    assert [len(one) for one in own] == {1: [4], 2: [2, 2], 3: [1, 1, 2], 5: [1] * 5}[count]


def test_where_stages_cannot_be_side_by_side():
    both = ["kdjax", "--config=x.py", "--workdir=w", "--jobs=2", "--distributed"]
    try:
        with pytest.raises(
            BadInput, match=r"^--jobs: .*--distributed"
        ):  # who does not wait for others
            command.main(both)
        FLAGS.distributed = False
        with pytest.raises(BadInput, match=r"^--jobs: gs://.* is no local directory"):
            command._check_jobs(command.epath.Path("gs://bucket/w"))
    finally:
        FLAGS.unparse_flags()
        FLAGS.distributed, FLAGS.jobs = False, 1
