"""The stage that pretrains: every config of a method, what it leaves, its probe, what it refuses."""

import pathlib

import jax
import numpy as np
import pytest
from etils import epath

from kdjax import config, pipeline, tree
from kdjax.artifacts import Artifact
from kdjax.artifacts.model import encoder_of
from kdjax.contexts import Splits
from kdjax.load import load_config
from kdjax.train import recorder
from kdjax.types import BadInput

CONFIGS = pathlib.Path(__file__).parents[2] / "configs" / "ssl"
METHODS = [
    "simclr",
    "dcl",
    "moco_v2",
    "moco_v3",
    "byol",
    "simsiam",
    "barlow_twins",
    "vicreg",
    "swav",
    "dino",
    "rotation",
    "mae",
]
DINO = {"name": "dino", "prototypes": 8}


def _kept(task):
    artifact = Artifact.open(task.folder, task.stage)
    return encoder_of(artifact, field="here")


# Of the others the first step is compared in `test_methods.py`; they differ in the method alone.
@pytest.mark.parametrize("name", [pytest.param("byol", marks=pytest.mark.thorough), "dino"])
def test_configs_run_and_leave_an_encoder(name, tmp_path):
    changes = ["parallel=single", "data.train_split=train[:20%]", f"stages.{name}.batch=16"]
    if name != "dino":  # one is enough: they are those of all
        changes.append(f"stages.{name}.views={{'recipe': 'crop_flip', 'flip': 0.0}}")
    if name == "dino":
        local = "{'recipe': 'crop_flip', 'size': 6}"
        changes.append(f"stages.{name}.method.local_views={local}")
        changes.append(f"stages.{name}.method.local_crops=2")
    run = load_config(f"{CONFIGS / name}.py:runlocal", changes)
    splits = Splits(run.data)
    tasks = pipeline.plan(run, epath.Path(tmp_path), splits, only=[name])
    pipeline.execute(run, tasks, splits)
    spec, read = _kept(tasks[-1])
    variables = read()
    assert spec.encoder == run.stages[name].encoder
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(variables))
    assert (tasks[-1].folder / "metrics.jsonl").exists()


def test_the_table_has_every_method_as_its_own_config_has_it():
    table = load_config(f"{CONFIGS / 'table.py'}:seeds=2")
    assert table.seeds == (0, 1)
    pretrained = {n: s for n, s in table.stages.items() if isinstance(s, config.Pretrain)}
    assert [name for name in pretrained if "untrained" not in name] == METHODS
    files = {path.stem for path in CONFIGS.glob("*.py")} - {"table", "ssl_digits"}
    assert files == set(METHODS)
    for name in METHODS:
        stage = pretrained[name]
        assert load_config(f"{CONFIGS / name}.py").stages[name] == stage
        assert stage.method.name == name


SMALL = {
    "stages__pretrain__encoder__widths": [4, 8],
    "stages__pretrain__views": {"recipe": "crop_flip", "flip": 0.0},
    "stages__pretrain__optimizer": {"name": "adamw", "learning_rate": 0.01, "clip_norm": 0.1},
    "stages__pretrain__method": DINO,
}


def test_the_probe_learns_and_the_encoder_does_not_know(line):
    without = line.run(only=["pretrain"], **SMALL)["pretrain"]
    task = line.run(only=["pretrain"], **SMALL, stages__pretrain__probe=True)["pretrain"]
    assert task.folder != without.folder
    metrics = recorder.read(task.folder / "metrics.jsonl")
    assert all(0 <= m["accuracy/probe"] <= 1 for m in metrics)
    losses = [m["loss/probe"] for m in metrics]
    assert losses[0] == pytest.approx(np.log(10), rel=0.5)
    assert len({*losses}) > 1
    for found, expected in zip(
        metrics, recorder.read(without.folder / "metrics.jsonl"), strict=True
    ):
        assert found["loss/dino"] == pytest.approx(expected["loss/dino"], rel=1e-6)
    (_, read), (_, expected) = _kept(task), _kept(without)
    for name, leaf in tree.named_leaves(expected()).items():
        found = tree.named_leaves(read())[name]
        np.testing.assert_allclose(found, leaf, rtol=1e-6, atol=1e-8, err_msg=name)


def test_what_is_left_is_finetuned(line):
    tasks = line.run(only=["teacher"], **SMALL, stages__teacher__steps=2)
    manifest = Artifact.open(tasks["teacher"].folder, tasks["teacher"].stage).manifest
    assert manifest["rows"][0]["primary"] == "accuracy"


VIT = {"name": "vit", "width": 8, "depth": 1, "heads": 2, "mlp": 8, "patch": 2}
RAMP = {"begin": 0.9, "end": 1.0, "begin_step": 6}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": {"name": "moco_v2", "queue": 100}}, "method.queue: 100 is no multiple of the"),
        (
            {"method": {"name": "byol", "momentum": 1.5}},
            r"method.momentum: 1.5 is not in \[0, 1\]",
        ),
        ({"method": {"name": "byol", "momentum": RAMP}}, "method.momentum.begin_step: 6 is not in"),
        ({"method": {"name": "byol"}, "ema": 0.9}, r"\.ema: byol has a target network"),
        ({"method": {"name": "byol"}, "temperature": 0.5}, r"\.temperature: unknown field"),
        ({"method": {"name": "swav", "prototypes": 1}}, "method.prototypes: 1 is not in"),
        ({"method": {"name": "swav", "freeze_steps": 6}}, "method.freeze_steps: 6 is not in"),
        ({"method": {"name": "swav", "local_crops": 2}}, "method.local_views: 2 local crops; give"),
        ({"method": {"name": "mae"}}, "encoder.name: cnn has no patches to hide; take vit"),
        ({"method": {"name": "mae"}, "encoder": VIT}, "projector: mae has a decoder in its place"),
        (
            {"method": {"name": "mae", "share": 0.01}, "encoder": VIT, "projector": []},
            "method.share: 0.01 hides 0 of 16 patches",
        ),
        (
            {"method": {"name": "mae", "decoder_heads": 3}, "encoder": VIT, "projector": []},
            "method.decoder_heads: 3 do not divide the width of 128",
        ),
        (
            {
                "method": {"name": "mae"},
                "encoder": {**VIT, "class_token": True},
                "projector": [],
            },
            "encoder.class_token: True is not for mae: its decoder takes the tokens of patches alone",
        ),
        (
            {"method": {"name": "mae"}, "encoder": {**VIT, "registers": 2}, "projector": []},
            "encoder.registers: 2 is not for mae: its decoder takes the tokens of patches alone",
        ),
        (
            {
                "method": {"name": "mae"},
                "encoder": {**VIT, "norm_after_pool": True},
                "projector": [],
            },
            "encoder.norm_after_pool: True is not for mae",
        ),
        (
            {
                "method": {
                    **DINO,
                    "local_crops": 2,
                    "local_views": {"recipe": "simclr", "size": 6},
                },
                "encoder": VIT,
            },
            "method.local_views.size: 6, but the positions of a ViT are those of image of 8 x 8 pixels",
        ),
    ],
)
def test_bad_methods(line, changes, message):
    changes = {f"stages__pretrain__{name}": value for name, value in changes.items()}
    with pytest.raises(BadInput, match=f"^config.stages.pretrain.*{message}"):
        line.run(only=["pretrain"], **changes)
