"""The config of sentences, on a few of them: from a BERT that is made here to files that read text."""

import json
import os

import pytest

from tests.test_main import ROOT, kdjax

pytest.importorskip("tokenizers", reason="tokenizers is not installed")
pytest.importorskip("jax2onnx", reason="the extra export is not installed")
CONFIG = f"--config={ROOT / 'configs' / 'sst2_distil.py'}:runlocal"
PREPARED = os.path.isdir(os.path.join(os.environ.get("KDJAX_DATA_DIR", ""), "sst2_sentences"))


@pytest.mark.slow
@pytest.mark.thorough
@pytest.mark.skipif(not PREPARED, reason="KDJAX_DATA_DIR has no sst2_sentences")
def test_sentences_runlocal(tmp_path):
    stages = "--stages=layers_alone_all,export_healed,export_bag_all,export_tiny_5"
    ended = kdjax(CONFIG, f"--workdir={tmp_path}", stages)
    assert ended.returncode == 0, ended.stderr
    report = json.loads((tmp_path / "report.json").read_text())
    rows = {row["stage"]: row for row in report["rows"]}
    assert {
        "teacher_all",
        "layers_all",
        "layers_alone_all",
        "bag_all",
        "int8_healed.onnx",
        "int8_bag_all.onnx",
        "int8_tiny_5.onnx",
    } <= {*rows}
    sizes = [rows[name]["params"] for name in ("small_healed", "healed", "layers_all")]
    assert sizes == sorted({*sizes})
    assert rows["small_bag_all"]["params"] < rows["bag_all"]["params"]
    sizes = {len(p.read_text()) for p in tmp_path.glob("stages/*/tokenizer.json")}
    assert len(sizes) == 1  # both are trimmed to the same tokens


# That the config is taken: tests/stages/test_effect.py.
@pytest.mark.thorough
@pytest.mark.skipif(not PREPARED, reason="KDJAX_DATA_DIR has no sst2_sentences")
def test_sentences_are_planned(tmp_path):
    ended = kdjax(CONFIG, f"--workdir={tmp_path}", "--dry_run")
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("to do") == 53
    assert not (tmp_path / "stages").exists()
