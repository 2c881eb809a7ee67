"""Artifacts: strict, whole or absent."""

import json

import jax
import pytest

from kdjax.artifacts import MANIFEST, Artifact
from kdjax.artifacts.model import Spec, load


def test_manifest_says_what_it_is(line):
    tasks = line.run()
    task = tasks["student"]
    manifest = json.loads((task.folder / MANIFEST).read_text())
    assert manifest["fingerprint"] == task.fingerprint
    assert manifest["upstream"] == {
        "cache": tasks["cache"].fingerprint,
        "teacher": tasks["teacher"].fingerprint,
    }
    assert manifest["config"]["steps"] == 30
    assert {"jax", "flax", "python", "kdjax"} <= manifest["versions"].keys()
    assert manifest["device"].startswith(f"{jax.device_count()} x cpu (")


def test_restore_is_strict(line):
    task = line.run()["student"]
    artifact = Artifact.open(task.folder, task.stage)
    spec, _ = load(artifact, field="here")
    wider = dict(artifact.manifest["model"], encoder={"name": "cnn", "widths": [4, 9]})
    with pytest.raises(ValueError, match=r"mean: found float32\[8\], expected float32\[9\]"):
        load(Artifact(task.folder, {**artifact.manifest, "model": wider}, task.stage), field="here")
    with pytest.raises(ValueError, match="not what the manifest was written for"):
        load(
            Artifact(task.folder, {**artifact.manifest, "variables": "0"}, task.stage), field="here"
        )
    assert Spec.of(artifact, field="here") == spec
