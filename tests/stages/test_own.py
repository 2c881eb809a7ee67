"""A line of the user's own pieces, from outside the package: trained, pruned, shrunk, exported."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from etils import epath

from kdjax import pipeline, tree
from kdjax.artifacts import Artifact
from kdjax.artifacts.model import load
from kdjax.contexts import Splits
from kdjax.load import load_config
from kdjax.train import recorder
from kdjax.types import BadInput
from tests.compiled import HARDLY_OPTIMIZED

ROOT = Path(__file__).parents[2]
LINE = '''
"""Everything of it is the user's."""

import jax.numpy as jnp

from pieces import TinyNet, speckled

STRENGTH = 1.0


def far(outputs, batch, *, margin: float):
    """A penalty of large logits."""
    return STRENGTH * jnp.maximum(jnp.abs(outputs["logits"]).max(-1) - margin, 0.0)


def get_config(arg=None):
    views = dict(function=speckled, amount=0.05)
    training = dict(batch=32, optimizer=dict(name="adamw", learning_rate=3e-3), log_every_steps=1)
    net = dict(function=TinyNet, widths=[8, 16])
    terms = dict(
        far=dict(function=far, weight=0.5, margin=0.1),
        rank=dict(function="pieces:rank_hinge", weight=0.5),
    )
    distilled = dict(kind="distill", cache="cache", steps=4, terms=terms, **training)
    own = dict(function="pieces:aligned")
    gradual = dict(name="gradual", sparsity=0.5, begin_step=0, end_step=3, every_steps=1)
    stages = dict(
        pretrain=dict(
            kind="pretrain", encoder=net, views=views, method=own, projector=[8], steps=2, **training
        ),
        teacher=dict(kind="finetune", start_from="pretrain", views=views, steps=2, **training),
        cache=dict(kind="cache", teacher="teacher", recipe=views, views=2, dtype="float32"),
        student=dict(distilled, encoder=net, prune=gradual),
        shrunk=dict(kind="shrink", model="student", sparsity=0.25, examples=64),
        small=dict(distilled, start_from="shrunk", sweep=[]),
        int8=dict(kind="quantize", model="small", agreement=0.0, calibration_examples=64),
        files=dict(kind="export", model="small"),
        files_int8=dict(kind="export", model="int8", formats=["onnx"], agreement=0.0),
    )
    if arg == "more":
        stages = {name: stages[name] for name in ("pretrain", "teacher", "cache", "student")} | dict(
            parts=dict(distilled, encoder=net, accumulate=2),
            several=dict(distilled, encoder=net, sweep=[dict(temperature=2.0), dict(kd_weight=0.5)]),
        )
    return dict(
        name="own",
        data=dict(
            name="digits", train_split="train[:30%]", test_split="test[:30%]", labels_per_class=4
        ),
        stages=stages,
        latency_bulk_batch=2,
    )
'''


def written(folder: Path) -> Path:
    """The config file, and a module beside it."""
    folder.mkdir(exist_ok=True)
    shutil.copy(ROOT / "tests" / "own_pieces.py", folder / "pieces.py")
    (folder / "line.py").write_text(LINE)
    return folder / "line.py"


def planned(config, workdir, overrides=(), only=None):
    run = load_config(str(config), overrides)
    splits = Splits(run.data)
    return run, pipeline.plan(run, epath.Path(workdir), splits, only=only), splits


def ran(config, workdir, overrides=(), only=None):
    run, tasks, splits = planned(config, workdir, overrides, only)
    pipeline.execute(run, tasks, splits)
    return {task.name: task for task in tasks}


def logged(task, name):
    return np.array([line[name] for line in recorder.read(task.folder / "metrics.jsonl")])


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The whole line on eight devices."""
    folder = tmp_path_factory.mktemp("own")
    config = written(folder / "configs")
    return config, folder / "run", ran(config, folder / "run", ["parallel=pmap"])


@pytest.mark.slow
def test_the_line_goes_through_pruning_shrinking_int8_and_export(whole):
    _, _, tasks = whole
    said = {name: Artifact.open(t.folder, t.stage).manifest for name, t in tasks.items()}
    encoder = said["student"]["model"]["encoder"]
    assert encoder["function"] == "pieces:TinyNet"
    assert encoder["widths"] == [8, 16]
    assert encoder["source"].keys() == {"pieces"}
    assert said["student"]["zeros"] == said["student"]["pruned"] > 0
    assert said["small"]["model"]["widths"]
    assert said["int8"]["model"]["rules"]
    for name in ("files", "files_int8"):
        assert all(entry["passed"] for entry in said[name]["parity"] if "passed" in entry)
        assert said[name]["parity"]
    for name in ("far", "rank"):
        assert logged(tasks["student"], f"loss/{name}")[0] > 0
    weighted = sum(
        weight * logged(tasks["student"], f"loss/{name}")
        for name, weight in {"kd": 0.9, "ce": 0.1, "far": 0.5, "rank": 0.5}.items()
    )
    np.testing.assert_allclose(logged(tasks["student"], "loss"), weighted, rtol=1e-5)
    assert "near" in recorder.read(tasks["pretrain"].folder / "metrics.jsonl")[0]


@pytest.mark.slow
def test_a_fresh_process_writes_the_files_again_without_the_users_files(whole, tmp_path):
    config, workdir, _ = whole
    program = f"""
from kdjax.commands.reexport import reexport
raise SystemExit(reexport({str(workdir)!r}))
"""
    for path in config.parent.iterdir():
        if path.is_file():
            path.rename(path.with_suffix(".gone"))
    try:
        found = subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", **HARDLY_OPTIMIZED},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        written(config.parent)
    assert found.returncode == 0, found.stderr
    for name in ("small.onnx", "small.stablehlo", "int8.onnx"):
        assert f"{name}: written again" in found.stdout


@pytest.mark.slow
def test_what_is_changed_is_run_again_and_what_follows_it(whole):
    config, workdir, tasks = whole

    def to_do():
        return {t.name for t in planned(config, workdir, ["parallel=pmap"])[1] if not t.done}

    assert to_do() == set()
    text, pieces = config.read_text(), config.parent / "pieces.py"
    with_comment = text.replace("STRENGTH = 1.0", "# How strong.\nSTRENGTH = 1.0\n\n")
    config.write_text(with_comment.replace('"""A penalty of large logits."""', '"""A loss."""'))
    pieces.write_text(f"{pieces.read_text()}\n\ndef unused():\n    return None\n")
    assert to_do() == set()
    config.write_text(text.replace("STRENGTH = 1.0", "STRENGTH = 0.5"))
    after = {"student", "shrunk", "small", "int8", "files", "files_int8"}
    assert to_do() == after
    config.write_text(text)
    pieces.write_text(pieces.read_text().replace("SLOPE = 1.0", "SLOPE = 2.0"))
    assert to_do() == after
    written(config.parent)
    pieces.write_text(pieces.read_text().replace("0.0, 1.0)", "0.0, 0.9)"))
    assert to_do() == {*tasks}
    written(config.parent)


@pytest.mark.thorough
def test_one_device_parts_of_a_batch_and_sweeps(whole, tmp_path):
    config, _, tasks = whole
    more = ran(f"{config}:more", tmp_path, ["parallel=single"])
    for name in ("loss", "loss/far", "loss/rank"):
        np.testing.assert_allclose(
            logged(more["student"], name), logged(tasks["student"], name), rtol=2e-3, atol=2e-4
        )
    assert np.isfinite(logged(more["parts"], "loss/far")).all()
    manifest = Artifact.open(more["several"].folder, more["several"].stage).manifest
    assert len(manifest["sweep"]["students"]) == 2


@pytest.mark.slow
def test_what_is_left_has_the_names_that_the_module_gives(whole):
    _, _, tasks = whole
    _, variables = load(Artifact.open(tasks["small"].folder, tasks["small"].stage), field="here")
    names = tree.named_leaves(variables["params"])
    assert {"encoder/Conv_0/kernel", "encoder/BatchNorm_0/scale"} <= names.keys()
    assert names["encoder/Conv_0/kernel"].shape[-1] < 8


FAULTS = """
import flax.linen as nn
import jax.numpy as jnp


def helper(x):
    return x["nothing"]


def fails(outputs, batch):
    return helper(outputs)


def square(outputs, batch):
    return outputs["logits"]


class Maps(nn.Module):
    @nn.compact
    def __call__(self, image, *, train):
        return nn.Conv(4, (3, 3))(image)


class Wrong(nn.Module):
    @nn.compact
    def __call__(self, image, *, train):
        return nn.Dense(4)(image) @ jnp.zeros((5, 3))


def cut(key, image, *, size):
    return image[:2]


def lost(key, image, *, size):
    return image.nothing


def nothing(trained):
    return None
"""


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (
            {"terms": {"one": {"function": "faults:fails"}}},
            r"config.stages.net.terms.one.function: .*faults.py:7: KeyError: 'nothing'$",
        ),
        (
            {"terms": {"one": {"function": "faults:square"}}},
            r"config.stages.net.terms.one.function: faults:square gave float32 \(8, 10\); a term "
            r"gives losses \[batch\], or \(losses, rows\), or of positions \(losses, mask\), or a "
            r"scalar, of floats$",
        ),
        (
            {"terms": {"ce": {"function": "faults:square"}}},
            r"config.stages.net.terms.ce: the stage has a term of this name; give it another$",
        ),
        (
            {"encoder": {"function": "faults:Maps"}},
            r"config.stages.net.encoder.function: faults:Maps gave float32 \(2, 8, 8, 4\) of two "
            r"examples; features are floats \[batch, dim\]$",
        ),
        (
            {"encoder": {"function": "flax.linen:Dense", "features": 4}},
            r"config.stages.net.encoder: Dense takes \(inputs\): got an unexpected keyword argument "
            r"'train'; write its `__call__` as \(self, image, \*, train\)$",
        ),
        (
            {"encoder": {"function": "faults:Wrong"}},
            r"config.stages.net.encoder.function: .*faults.py:27: TypeError: ",
        ),
        (
            {"views": {"function": "faults:cut"}},
            r"config.stages.net.views.function: faults:cut gave float32 \(2, 8, 1\); a view is "
            r"float32 \(8, 8, 1\)$",
        ),
        (
            {"views": {"function": "faults:lost"}},
            r"config.stages.net.views.function: .*faults.py:35: AttributeError: ",
        ),
        (
            {
                "kind": "pretrain",
                "method": {"function": "faults:nothing"},
                "views": {"recipe": "eval"},
            },
            r"config.stages.net.method.function: faults:nothing gave nothing, and no "
            r"kdjax.ssl.Method$",
        ),
    ],
)
def test_what_fails_is_said_before_anything_runs(change, line, tmp_path):
    (tmp_path / "faults.py").write_text(FAULTS)
    stage = {
        "kind": "finetune",
        "encoder": {"name": "cnn", "widths": [4]},
        "views": {"recipe": "eval"},
        "steps": 2,
        "batch": 8,
        "optimizer": {"name": "sgd", "learning_rate": 0.1},
        **change,
    }
    data = {"name": "digits", "train_split": "train[:10%]", "test_split": "test[:10%]"}
    values = {"name": "faults", "data": data, "stages": {"net": stage}}
    (tmp_path / "line.py").write_text(
        f"def get_config(arg=None):\n    return {json.dumps(values)}\n"
    )
    run, tasks, splits = planned(tmp_path / "line.py", tmp_path / "run")
    with pytest.raises(BadInput) as caught:
        pipeline.check(run, tasks, splits)
    assert re.match(line, str(caught.value)), str(caught.value)
