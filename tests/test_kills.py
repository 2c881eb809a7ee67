"""Killed and begun again is as never killed; `python -m tests.kills` does so as often as is wanted."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests import kills
from tests.compiled import HARDLY_OPTIMIZED

ROOT = Path(__file__).parents[1]


def killed(*args):
    return subprocess.run(
        [sys.executable, "-m", "tests.kills", *args],
        env={**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", **HARDLY_OPTIMIZED},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )


@pytest.mark.slow
def test_killed_as_it_trains_and_as_it_asks_the_teacher():
    """Once a second checkpoint is there, and again at the next that is whole."""
    ended = killed("--stages=teacher", "--file=a checkpoint written", "--count=2", "--kills=2")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    last = ended.stdout.splitlines()[-1]
    found = re.fullmatch(
        r"2 kills \(2 by file\): (\d+) arrays, (\d+) figures, (\d+) files, (\d+) scalars compared, "
        r"0 differences",
        last,
    )
    assert found, ended.stdout
    assert all(int(count) > 0 for count in found.groups())


@pytest.mark.slow
@pytest.mark.thorough
def test_every_kind_of_stage_killed_anywhere():
    ended = killed("--kills=6", "--seed=1")
    assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.mark.slow
@pytest.mark.thorough
def test_examples_put_together_by_length_killed_anywhere():
    ended = killed("--config=tests/ragged_line.py", "--kills=6", "--seed=2")
    assert ended.returncode == 0, ended.stdout + ended.stderr


def left(folder, **changed):
    """What a stage that trained might have left, with something changed."""
    stage = folder / "stages" / "a-seed0-12345678"
    (stage / "cache").mkdir(parents=True)
    figures = {"accuracy": 0.5, "wall_seconds": len(changed), "rows": [{"latency_ms_p50": 1.0}]}
    files = {
        "manifest.json": json.dumps(figures | changed.get("figures", {})),
        "metrics.jsonl": changed.get("log", '{"step": 1}\n{"step": 2}\n'),
        "cache/0": "bytes",
    }
    for name, text in {**files, **changed.get("more", {})}.items():
        if text is not None:
            (stage / name).write_text(text)
    return folder


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({}, None),
        ({"figures": {"wall_seconds": 7, "rows": [{"latency_ms_p50": 2.0}]}}, None),
        ({"figures": {"accuracy": 0.25}}, "manifest.json: accuracy: 0.25 for 0.5"),
        ({"log": '{"step": 2}\n'}, "metrics.jsonl: 1 for 2 entries, first at 0"),
        ({"more": {"cache/0": "bytez"}}, "cache/0: 5 and 5 bytes, not the same"),
        ({"more": {"cache/0": None}}, "cache/0: missing"),
        ({"more": {"left.tmp": ""}}, "left.tmp: not in the undisturbed run"),
    ],
)
def test_the_comparison_sees_what_differs(tmp_path, changed, line):
    compared = kills.compare(left(tmp_path / "found", **changed), left(tmp_path / "wanted"))
    assert sum(compared.counts.values()) >= 3
    if line is None:
        assert not compared.differences
    else:
        (found,) = compared.differences
        assert found.startswith(f"stages/a-seed0-12345678/{line}")
