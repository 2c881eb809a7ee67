"""`configs/own_model.py`, and the page's file beside it: run to a file that is checked."""

import json
import re
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import onnxruntime
import pytest
from etils import epath

from kdjax import load, main, pipeline, weights
from kdjax.contexts import Splits
from kdjax.types import BadInput

ROOT = Path(__file__).parents[2]
OWN = ROOT / "configs" / "own_model.py"
PAGE = (ROOT / "kdjax" / "config" / "README.md").read_text()


def _pictures(n, seed):
    """Of three classes, by where they are bright."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 3
    images = rng.integers(0, 100, (n, 8, 12, 1))
    for row, label in enumerate(labels):
        images[row, :, 4 * label : 4 * label + 4] += 120
    return images.astype(np.uint8), labels


@pytest.fixture
def beside(tmp_path, monkeypatch):
    """The page's file, a copy of the config, and the arrays, in a folder of the user's."""
    (text,) = re.findall(r"```python\n# mine\.py\n(.*?)```", PAGE, re.DOTALL)
    shutil.copy(OWN, tmp_path)
    (tmp_path / "mine.py").write_text(text)
    train, test = _pictures(288, 0), _pictures(60, 1)
    names = ("train_images", "train_labels", "test_images", "test_labels")
    np.savez(tmp_path / "pictures.npz", **dict(zip(names, (*train, *test), strict=True)))
    monkeypatch.chdir(tmp_path)
    return tmp_path


# A module, arrays and a recipe of one's own go down the line in tests/stages/test_own.py.
@pytest.mark.slow
@pytest.mark.thorough
def test_from_arrays_module_and_recipe_to_an_int8_file(beside):
    trains = ("teacher", "student", "scratch", "pruned", "small")
    changes = [f"--config.stages.{name}.steps=60" for name in trains]
    changes += [f"--config.stages.{name}.batch=32" for name in trains]
    changes += ["--config.stages.pruned.prune.end_step=30", "--config.stages.cache.views=2"]
    changes += [f"--config.stages.{n}.optimizer.schedule.warmup_steps=2" for n in trains]
    main.main(["kdjax", "--config=mine.py", "--workdir=run", *changes])
    report = json.loads((beside / "run" / "report.json").read_text())
    rows = {row["stage"]: row for row in report["rows"]}
    assert rows["teacher"]["scores"]["accuracy"]["value"] > 0.9
    assert rows["pruned"]["nonzero_params"] < 0.7 * rows["student"]["params"]
    assert rows["small"]["params"] < 0.7 * rows["student"]["params"]
    assert rows["int8.onnx"]["bytes_on_disk"] < rows["small.onnx"]["bytes_on_disk"]
    parity = {entry["artifact"]: entry for entry in report["parity"]}
    assert parity["small.onnx"]["max_difference"] <= parity["small.onnx"]["tolerance"]
    for name in ("int8", "int8.onnx"):
        assert parity[name]["agreement"] >= parity[name]["required_agreement"] >= 0.95
    assert parity["int8.onnx"]["computes"] == "integers"
    (file,) = (beside / "run" / "stages").glob("file-*/int8.onnx")
    images, labels = _pictures(60, 1)
    (answers,) = onnxruntime.InferenceSession(str(file)).run(None, {"image": images})
    accuracy = (answers.argmax(-1) == labels).mean()
    assert accuracy == pytest.approx(rows["int8.onnx"]["scores"]["accuracy"]["value"])
    assert accuracy > 0.9


def _checked(config, workdir):
    run = load.load_config(str(config))
    splits = Splits(run.data)
    tasks = pipeline.plan(run, epath.Path(workdir), splits)
    return [task.name for task in pipeline.check(run, tasks, splits)]


def test_weights_of_ones_own_network(tmp_path):
    """They are bound by the names of its variables, and those of another network are refused."""
    network = load.load_config(str(OWN)).stages["teacher"].encoder.loaded
    for width in (32, 8):
        net = network(width=width)
        variables = net.init(jax.random.key(0), jnp.zeros((1, 8, 8, 1)), train=True)
        weights.write(tmp_path / f"w{width}.safetensors", net, variables)
    found = _checked(f"{OWN}:runlocal,weights={tmp_path}/w32.safetensors", tmp_path / "run")
    assert found[:3] == ["teacher", "cache", "student"]
    with pytest.raises(BadInput, match=r"^config.stages.teacher.encoder.weights: "):
        _checked(f"{OWN}:runlocal,weights={tmp_path}/w8.safetensors", tmp_path / "other")
