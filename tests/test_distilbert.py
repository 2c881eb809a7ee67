"""The config of DistilBERT's recipe, two steps of it: a teacher, students live and cached, a file."""

import json
import os

import pytest

from tests.test_main import ROOT, kdjax

pytest.importorskip("tokenizers", reason="tokenizers is not installed")
CONFIG = f"--config={ROOT / 'configs' / 'distilbert.py'}"
PREPARED = os.path.isdir(os.path.join(os.environ.get("KDJAX_DATA_DIR", ""), "sst2_sentences"))

pytestmark = pytest.mark.thorough


@pytest.mark.skipif(not PREPARED, reason="KDJAX_DATA_DIR has no sst2_sentences")
def test_distilbert_runlocal(tmp_path):
    pytest.importorskip("jax2onnx", reason="the extra export is not installed")
    ended = kdjax(f"{CONFIG}:runlocal", f"--workdir={tmp_path}")
    assert ended.returncode == 0, ended.stderr
    report = json.loads((tmp_path / "report.json").read_text())
    rows = {row["stage"]: row for row in report["rows"]}
    assert {"teacher", "student", "cached", "alone", "student.onnx"} <= {*rows}
    for row in rows.values():
        assert row["primary"] == "pseudo_perplexity"
    assert rows["student"]["params"] == rows["cached"]["params"] < rows["teacher"]["params"]


def test_the_full_scale_is_planned_for_texts_of_ones_own(tmp_path):
    """Its stages with small ones in the place of BERT's."""
    for split, n in (("train", 60), ("test", 2)):
        texts = [f"the film number {i} is as good as its plot" for i in range(n)]
        (tmp_path / f"{split}.txt").write_text("\n".join(texts) + "\n")
    arg = f"{CONFIG}:full,runlocal,texts={tmp_path}"
    changed = (
        "--config.data.train_split=train",
        "--config.data.test_split=test",
        "--config.data.source.tokenizer.vocab=60",
        "--config.data.source.max_length=16",
    )
    ended = kdjax(arg, *changed, f"--workdir={tmp_path / 'run'}", "--dry_run")
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("to do") == 6
