"""The config of LibriSpeech, on made-up recordings in its layout."""

import json
import wave

import numpy as np
import pytest

from tests.test_main import ROOT, kdjax

CONFIG = f"--config={ROOT / 'configs' / 'librispeech.py'}:root={{}},runlocal"
RATE = 16_000
SAID = ("A NOISE THAT IS LOUD", "IT'S A TONE", "NOTHING AT ALL", "THE END", "AND ON")


@pytest.fixture
def folder(tmp_path):
    """Five noises a split, with what might be said in them."""
    random = np.random.default_rng(0)
    for split, speaker in (("train-clean-100", 19), ("test-clean", 84)):
        beside = tmp_path / "LibriSpeech" / split / f"{speaker}" / "198"
        beside.mkdir(parents=True)
        lines = []
        for i, said in enumerate(SAID):
            name = f"{speaker}-198-{i:04}"
            samples = random.normal(size=RATE * (2 + i) // 2) * 2_000
            with wave.open(str(beside / f"{name}.wav"), "wb") as file:
                file.setparams((1, 2, RATE, 0, "NONE", "not compressed"))
                file.writeframes(samples.astype("<i2").tobytes())
            lines.append(f"{name} {said}\n")
        (beside / f"{speaker}-198.trans.txt").write_text("".join(lines))
    return tmp_path / "LibriSpeech"


def test_librispeech_is_planned(folder, tmp_path):
    ended = kdjax(CONFIG.format(folder), f"--workdir={tmp_path / 'run'}", "--dry_run")
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("to do") == 9


def test_a_part_that_is_not_there_is_one_line(folder, tmp_path):
    (folder / "train-clean-100").rename(folder / "train-clean-360")
    ended = kdjax(CONFIG.format(folder), f"--workdir={tmp_path / 'run'}", "--dry_run")
    assert ended.returncode == 2
    assert ended.stderr.splitlines()[-1].startswith(
        "kdjax: config.data.train_split: split 'train-clean-100': "
    )


@pytest.mark.thorough
def test_librispeech_runlocal(folder, tmp_path):
    pytest.importorskip("jax2onnx", reason="the extra export is not installed")
    ended = kdjax(CONFIG.format(folder), f"--workdir={tmp_path / 'run'}")
    assert ended.returncode == 0, ended.stderr
    rows = {r["stage"]: r for r in json.loads((tmp_path / "run/report.json").read_text())["rows"]}
    assert {"teacher", "student", "alone", "small", "small.onnx", "int8.onnx"} <= {*rows}
    assert rows["small"]["params"] < rows["student"]["params"]
