"""The config of connected digits: planned as it is, and run on a few utterances."""

import json
import os

import pytest

from tests.test_main import ROOT, kdjax

CONFIG = f"--config={ROOT / 'configs' / 'connected_digits.py'}:runlocal,extra"
PREPARED = os.path.isdir(os.path.join(os.environ.get("KDJAX_DATA_DIR", ""), "spoken_digit"))

pytestmark = pytest.mark.skipif(not PREPARED, reason="KDJAX_DATA_DIR has no spoken_digit")


def test_connected_digits_are_planned(tmp_path):
    ended = kdjax(CONFIG, f"--workdir={tmp_path}", "--dry_run")
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("to do") == 15
    assert "synthetic utterances" in ended.stdout + ended.stderr


@pytest.mark.slow
@pytest.mark.thorough
def test_connected_digits_runlocal(tmp_path):
    pytest.importorskip("jax2onnx", reason="the extra export is not installed")
    ended = kdjax(CONFIG, f"--workdir={tmp_path}")
    assert ended.returncode == 0, ended.stderr
    report = json.loads((tmp_path / "report.json").read_text())
    rows = {row["stage"]: row for row in report["rows"]}
    trained = {"teacher", "student", "free", "at_once", "paths", "alone", "alone_all"}
    trained |= {"small", "int8"}
    files = {f"{name}.onnx" for name in ("teacher", "free", "small", "int8")}
    assert trained | files <= {*rows}
    assert all(rows[name]["primary"] == "wer" for name in trained | files)
    assert rows["small"]["params"] < rows["free"]["params"]
