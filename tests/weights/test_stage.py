"""Published weights in a run: what is checked before it, what stages keep, what is done again."""

import functools
import json
import re

import numpy as np
import pytest
import safetensors.numpy
from etils import epath

from kdjax import config, main, parse, pipeline, weights
from kdjax.artifacts import Artifact
from kdjax.artifacts.model import EncoderSpec, Spec
from kdjax.contexts import Splits
from kdjax.types import BadInput

ENCODER = {"name": "cnn", "widths": [4, 6]}


def tensors_of(classes, *, seed=0):
    """Of a small network, each number another one, in kdjax's own names."""
    shapes = {
        "params/classifier/bias": (classes,),
        "params/classifier/kernel": (6, classes),
    }
    for i, (given, made) in enumerate([(1, 4), (4, 6)]):
        at = f"encoder/block{i}"
        shapes[f"params/{at}/conv/kernel"] = (3, 3, given, made)
        for name in ("params/{}/norm/scale", "params/{}/norm/bias"):
            shapes[name.format(at)] = (made,)
        for name in ("batch_stats/{}/norm/mean", "batch_stats/{}/norm/var"):
            shapes[name.format(at)] = (made,)
    random = np.random.default_rng(seed)
    return {n: random.uniform(0.5, 1.0, size=s).astype(np.float32) for n, s in shapes.items()}


def saved(path, classes=10, *, seed=0, **said):
    metadata = {"kdjax": json.dumps(said)} if said else None
    safetensors.numpy.save_file(tensors_of(classes, seed=seed), path, metadata=metadata)
    return str(path)


def run_of(source, *, data=(), **stages):
    """A run of one stage that has the weights as they are, or of the given ones."""
    encoder = {**ENCODER, "weights": source}
    stages = stages or {"imported": {"kind": "pretrained"}}
    stages = {name: {"encoder": encoder, **stage} for name, stage in stages.items()}
    return parse.parse(
        config.Run, {"name": "it", "data": {"name": "digits", **dict(data)}, "stages": stages}
    )


TRAINED = {"kind": "finetune", "views": {"recipe": "eval"}, "batch": 32, "steps": 1}
TRAINED |= {"optimizer": {"name": "sgd", "learning_rate": 0.1}}


@functools.cache
def digits():
    """Read once."""
    return Splits(config.Data(name="digits"))


def planned(run, workdir):
    splits = digits() if run.data == digits().config else Splits(run.data)
    return pipeline.plan(run, epath.Path(workdir), splits), splits


def mark(source, workdir="unused"):
    ((task,), _) = planned(run_of(source), workdir)
    return task.fingerprint


def test_the_content_is_part_of_the_fingerprint_and_the_place_is_not(tmp_path):
    first = mark(saved(tmp_path / "a.safetensors"))
    (tmp_path / "other").mkdir()
    assert mark(saved(tmp_path / "other" / "b.safetensors")) == first
    assert mark({"source": str(tmp_path / "a.safetensors")}) == first
    assert (
        mark({"source": str(tmp_path / "a.safetensors"), "skip": "params/classifier/.*"}) != first
    )
    assert mark({"source": str(tmp_path / "a.safetensors"), "layout": "kdjax"}) != first
    assert mark(saved(tmp_path / "a.safetensors", seed=1)) != first


def test_a_stage_without_weights_has_the_fingerprint_that_it_had():
    """A field that is not used changes no artifact of before."""
    parsed = parse.parse(config.Encoder, ENCODER)
    assert parse.plain(parsed, fingerprint=True) == ENCODER


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ("nowhere.safetensors", "weights: nowhere.safetensors: no such file or folder"),
        ("gs://bucket/x.safetensors", "weights are read from a local path"),
        ("hf:nobody", "names no repository"),
        ({"source": "x", "skip": "("}, "weights.skip: '(' is no regular expression"),
        ({"layout": "timm"}, "weights.source: missing"),
    ],
)
def test_weights_that_cannot_be_are_named_by_their_field(source, line, tmp_path):
    with pytest.raises(BadInput, match=re.escape(line)) as error:
        mark(source)
    assert str(error.value).startswith("config.stages.imported.encoder.weights")


def test_a_stage_of_weights_needs_some():
    with pytest.raises(BadInput, match=r"config\.stages\.imported\.encoder\.weights: missing"):
        run_of(None)


@pytest.mark.parametrize("stage", [{"kind": "pretrained"}, TRAINED])
def test_what_does_not_fit_is_refused_before_anything_runs(stage, tmp_path):
    path = saved(tmp_path / "x.safetensors")
    wide = run_of(path, first={**stage, "encoder": {**ENCODER, "widths": [4, 8], "weights": path}})
    tasks, splits = planned(wide, tmp_path)
    with pytest.raises(BadInput) as error:
        pipeline.check(wide, tasks, splits)
    said = str(error.value)
    assert said.startswith("config.stages.first.encoder.weights: ")
    assert "params/encoder/block1/conv/kernel is [3, 3, 4, 6] for [3, 3, 4, 8]" in said
    assert not (tmp_path / "stages").exists()


def test_a_value_that_is_not_finite_is_refused_before_anything_runs(tmp_path):
    path, found = tmp_path / "x.safetensors", tensors_of(10)
    found["params/encoder/block1/conv/kernel"][0, 0, 0, 0] = np.nan
    safetensors.numpy.save_file(found, path)
    run = run_of(str(path))
    tasks, splits = planned(run, tmp_path)
    with pytest.raises(
        BadInput, match=r"imported\.encoder\.weights: .*block1/conv/kernel has values"
    ):
        pipeline.check(run, tasks, splits)
    assert not (tmp_path / "stages").exists()


def test_other_preprocessing_is_one_line_with_the_values_to_set(tmp_path):
    known = weights.Preprocessing(size=(8, 8), mean=(0.3,), std=(0.4,))
    path = saved(tmp_path / "x.safetensors", preprocessing=known.plain())
    run = run_of(path)
    with pytest.raises(BadInput) as error:
        pipeline.check(run, *planned(run, tmp_path))
    assert str(error.value) == (
        f"config.data.mean: (0.0,), and {path} was trained with (0.3,); set config.data.mean=[0.3] and "
        "config.data.std=[0.4], or give the weights own_preprocessing=True if yours are meant"
    )
    run = run_of(path, data={"mean": [0.3], "std": [0.4]})
    pipeline.check(run, *planned(run, tmp_path))
    run = run_of({"source": path, "own_preprocessing": True})
    pipeline.check(run, *planned(run, tmp_path))


def test_a_whole_model_is_kept_measured_skipped_and_written_again(tmp_path, capsys):
    path = saved(tmp_path / "x.safetensors")
    run = run_of(path)
    tasks, splits = planned(run, tmp_path)
    pipeline.execute(run, tasks, splits)
    assert "12 of 12 tensors (kdjax) are 12 variables, classifier taken" in capsys.readouterr().err
    artifact = Artifact.open(tasks[0].folder, tasks[0].stage)
    account = artifact.manifest["weights"]
    assert (account["matched"], account["head"], account["layout"]) == (12, "taken", "kdjax")
    assert "weights" not in artifact.manifest["model"]["encoder"]
    assert len(artifact.manifest["rows"]) == 1
    spec = Spec.of(artifact, field="model")
    kept = artifact.variables(spec.abstract())
    wanted = tensors_of(10)
    np.testing.assert_array_equal(
        kept["params"]["classifier"]["kernel"], wanted["params/classifier/kernel"]
    )
    statistics = kept["batch_stats"]["encoder"]["block1"]["norm"]
    np.testing.assert_array_equal(statistics["var"], wanted["batch_stats/encoder/block1/norm/var"])

    assert not pipeline.check(run, *planned(run, tmp_path))
    saved(path, seed=1)
    assert len(pipeline.check(run, *planned(run, tmp_path))) == 1

    out = tmp_path / "out.safetensors"
    folder = tasks[0].folder
    assert main.main(["kdjax", "weights", str(folder), str(out)]) == 0
    manifest = folder / "manifest.json"
    before = manifest.read_bytes()
    with pytest.raises(BadInput, match=r"^OUT: .*manifest\.json is no name of safetensors"):
        main.main(["kdjax", "weights", str(folder), str(manifest)])
    assert manifest.read_bytes() == before
    again = safetensors.numpy.load_file(out)
    assert again.keys() == wanted.keys()
    for name, array in again.items():
        np.testing.assert_array_equal(array, wanted[name])
    said = weights.published(str(out)).written
    assert (said["classes"], said["architecture"], said["layout"]) == (10, "cnn-4-6", "kdjax")
    with pytest.raises(BadInput, match=r"--layout: 'timm' is no layout of cnn-4-6; known: kdjax"):
        main.main(["kdjax", "weights", str(folder), str(out), "--layout=timm"])
    with pytest.raises(BadInput, match="is not quantized"):
        main.main(["kdjax", "weights", str(folder), str(out), "--numbers=float"])


def test_an_encoder_is_kept_where_the_classes_are_others(tmp_path, capsys):
    run = run_of(saved(tmp_path / "x.safetensors", 7))
    tasks, splits = planned(run, tmp_path)
    pipeline.execute(run, tasks, splits)
    said = "the encoder alone: the classifier is left out, as it has 7 classes and the task 10"
    assert said in capsys.readouterr().err
    artifact = Artifact.open(tasks[0].folder, tasks[0].stage)
    assert "model" not in artifact.manifest
    assert "rows" not in artifact.manifest
    spec = parse.parse(EncoderSpec, artifact.manifest["encoder_model"])
    kept = artifact.variables(spec.abstract())
    wanted = tensors_of(7)["params/encoder/block0/conv/kernel"]
    np.testing.assert_array_equal(kept["params"]["encoder"]["block0"]["conv"]["kernel"], wanted)


def test_an_encoder_of_ones_own_begins_with_weights_in_kdjax_names(tmp_path):
    path = saved(tmp_path / "x.safetensors")
    own = {"function": "kdjax.models:CNN", "widths": [4, 6]}
    fields = {"source": path, "layout": "kdjax"}
    run = run_of(path, imported={"kind": "pretrained", "encoder": {**own, "weights": fields}})
    assert len(pipeline.check(run, *planned(run, tmp_path))) == 1
    gone = {**own, "weights": {"source": "nowhere"}}
    run = run_of(path, imported={"kind": "pretrained", "encoder": gone})
    with pytest.raises(
        BadInput, match=r"^config\.stages\.imported\.encoder\.weights\.source: nowhere"
    ):
        planned(run, tmp_path)
