"""Quantized models through the stages: made, trained on, exported, refused."""

import dataclasses
import importlib.util
import json

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import pytest

from kdjax import export, quant, tree
from kdjax.artifacts.artifact import Artifact
from kdjax.artifacts.model import load
from kdjax.export import load_litert, load_onnx
from kdjax.measuring.parity import StageFailed
from kdjax.types import BadInput

LITERT = all(importlib.util.find_spec(n) for n in ("litert_converter", "ai_edge_litert"))
_TRAINING = {
    "kind": "distill",
    "cache": "cache",
    "steps": 6,
    "batch": 32,
    "log_every_steps": 1,
    "optimizer": {"name": "sgd", "learning_rate": 0.05},
}
_RES = {**_TRAINING, "steps": 30, "encoder": {"name": "cifar_resnet", "depth": 8}}
_INT8 = {"kind": "quantize", "model": "res", "calibration_examples": 100, "agreement": 0.5}


# Random labels of a hardly trained network: its logits are close to one another.
_FILES = {"formats": ["stablehlo", "onnx"] + ["litert"] * LITERT, "agreement": 0.9}


def _opened(task):
    artifact = Artifact.open(task.folder, task.stage)
    return artifact, *load(artifact, field="here")


@pytest.fixture(scope="module")
def quantized(line):
    """A residual student in int8, trained on in int8, and as files."""
    return line.run(
        stages__res=_RES,
        stages__int8=_INT8,
        stages__aware={**_TRAINING, "start_from": "int8"},
        stages__int8_file={"kind": "export", "model": "int8", **_FILES},
        stages__aware_file={"kind": "export", "model": "aware", **_FILES},
    )


def test_a_quantized_model_is_a_model_like_any_other(quantized):
    artifact, spec, variables = _opened(quantized["int8"])
    assert spec.name == "resnet8 int8"
    names = [n for n in tree.named_leaves(variables["params"]) if n.endswith("conv/kernel")]
    assert set(spec.rules) == {n for n in names if "stem" not in n}
    said = artifact.manifest["quantized"]
    assert said["float_layers"] == ["encoder/stem/conv/kernel", "classifier/kernel"]
    assert "batch_stats" not in variables  # folded
    assert all(low <= high for low, high in variables["ranges"].values())
    json.dumps(artifact.manifest)


def test_training_goes_on_within_the_ranges(quantized):
    _, spec, before = _opened(quantized["int8"])
    _, after, variables = _opened(quantized["aware"])
    assert after == spec
    for name, found in variables["ranges"].items():
        np.testing.assert_array_equal(found, before["ranges"][name])
    changed = jax.tree.map(lambda a, b: bool(np.any(a != b)), variables["params"], before["params"])
    assert all(jax.tree.leaves(changed))


@pytest.mark.parametrize("model", ["int8", "aware"])
def test_the_file_has_the_integers_of_the_live_model(quantized, model, line):
    _, spec, variables = _opened(quantized[model])
    folder = quantized[f"{model}_file"].folder
    path = folder / f"{model}.onnx"
    graph = onnx.load(str(path)).graph
    stored = {t.name: onnx.numpy_helper.to_array(t) for t in graph.initializer}
    leaves = tree.named_leaves(variables["params"])
    for name, rule in spec.rules.items():
        kernel = np.asarray(leaves[name])
        expected = quant.quantize_weights(jnp.asarray(kernel), rule, channels=(3,)).integers
        (found,) = (v for n, v in stored.items() if n.endswith(f"{name}.integers"))
        assert found.dtype == np.int8
        np.testing.assert_array_equal(found, np.transpose(expected, (3, 2, 0, 1)))
    inputs = line.plan()[2].test_inputs
    live = np.asarray(jax.jit(spec.predict)(variables, inputs))
    logits = load_onnx(path, threads=1)(inputs["image"])
    assert np.abs(logits - live).mean() < 0.02 * np.abs(live).max()
    written = Artifact.open(folder, quantized[f"{model}_file"].stage).manifest
    rows = {row["runtime"]: row for row in written["rows"]}
    assert rows["onnxruntime:cpu"]["bytes_on_disk"] == path.stat().length
    assert rows["onnxruntime:cpu"]["bytes_on_disk"] < 0.35 * rows["stablehlo:cpu"]["bytes_on_disk"]
    bounds = {p["runtime"]: (p["tolerance"], p["required_agreement"]) for p in written["parity"]}
    assert bounds["onnxruntime:cpu"] == (None, 0.9)
    assert bounds["stablehlo:cpu"] == (None, 0.9)
    computes = {p["runtime"]: p["computes"] for p in written["parity"]}
    assert computes.pop("stablehlo:cpu") == "rounded in float"
    assert set(computes.values()) == {"integers"}


@pytest.mark.skipif(not LITERT, reason="the extra litert is not installed")
@pytest.mark.parametrize("model", ["int8", "aware"])
def test_the_litert_file_has_integers_too(quantized, model, line):
    task = quantized[f"{model}_file"]
    rows = {r["runtime"]: r for r in Artifact.open(task.folder, task.stage).manifest["rows"]}
    ratio = rows["litert:cpu"]["bytes_on_disk"] / rows["onnxruntime:cpu"]["bytes_on_disk"]
    assert 0.8 < ratio < 1.25
    _, spec, variables = _opened(quantized[model])
    inputs = line.plan()[2].test_inputs
    live = np.asarray(jax.jit(spec.predict)(variables, inputs))
    found = load_litert(task.folder / f"{model}.tflite", threads=1)(inputs["image"])
    assert np.abs(found - live).mean() < 0.02 * np.abs(live).max()


def test_zeros_stay_zero_in_integers(line):
    """A pruned student, quantized, trained on, as a file: the same zeros to the count."""
    prune = {"name": "gradual", "sparsity": 0.7, "begin_step": 0, "end_step": 4, "every_steps": 1}
    tasks = line.run(
        stages__sparse={**_RES, "steps": 8, "prune": prune},
        stages__int8={**_INT8, "model": "sparse"},
        stages__aware={**_TRAINING, "start_from": "int8"},
        stages__aware_file={
            "kind": "export",
            "model": "aware",
            "formats": ["onnx"],
            "agreement": 0.9,
        },
    )
    _, _, masked = _opened(tasks["sparse"])
    zeros = {
        name: np.asarray(leaf) == 0
        for name, leaf in tree.named_leaves(masked["params"]).items()
        if name.endswith("conv/kernel")
    }
    assert sum(z.sum() for z in zeros.values()) > 0.6 * sum(z.size for z in zeros.values())
    for name in ("int8", "aware"):
        _, _, variables = _opened(tasks[name])
        leaves = tree.named_leaves(variables["params"])
        for leaf, zero in zeros.items():
            np.testing.assert_array_equal(np.asarray(leaves[leaf]) == 0, zero)
    graph = onnx.load(str(tasks["aware_file"].folder / "aware.onnx")).graph
    stored = {t.name: onnx.numpy_helper.to_array(t) for t in graph.initializer}
    for leaf, zero in zeros.items():
        for found in (v for n, v in stored.items() if n.endswith(f"{leaf}.integers")):
            assert not found[np.transpose(zero, (3, 2, 0, 1))].any()


@pytest.mark.parametrize(
    "weights",
    ["ternary", *(pytest.param(few, marks=pytest.mark.thorough) for few in ("int4", "binary"))],
)
def test_fewer_bits_make_a_smaller_file(line, weights):
    """Weight-only: four bits hold them all."""
    rules = [{"weights": weights, "activations": None}]
    tasks = line.run(
        stages__res=_RES,
        stages__few={**_INT8, "rules": rules, "agreement": 0.0},
        stages__file={"kind": "export", "model": "few", "formats": ["onnx"]},
        stages__whole={"kind": "export", "model": "res", "formats": ["onnx"]},
    )
    _, spec, variables = _opened(tasks["few"])
    assert spec.name == f"resnet8 {weights}"
    assert "ranges" not in variables
    few, whole = (
        (tasks[name].folder / f"{model}.onnx").stat().length
        for name, model in (("file", "few"), ("whole", "res"))
    )
    assert few < 0.25 * whole
    (parity,) = Artifact.open(tasks["file"].folder, tasks["file"].stage).manifest["parity"]
    assert parity["max_difference"] < 1e-4 * parity["largest_output"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"calibration_examples": 0}, "int8.calibration_examples: 0 is not in"),
        ({"rules": [{"pattern": "nothing"}]}, r"int8.rules\['nothing'\]: matches no layer"),
        ({"rules": [{"pattern": "("}]}, r"int8.rules\[0\].pattern: '\(' is no regular expression"),
        ({"rules": [{"weights": None}]}, "int8.rules: nothing is left to quantize"),
        ({"rules": [{"weights": "int9"}]}, "weights: 'int9' is not one of int8, int4"),
        ({"model": "pretrain"}, "int8.model: pretrain has no head"),
        ({"calibration": "percentile", "percentile": 40.0}, "percentile: 40.0 is not in"),
    ],
)
def test_bad_quantization(line, changes, message):
    with pytest.raises(BadInput, match=message):
        line.run(stages__res=_RES, stages__int8={**_INT8, **changes})


def test_what_does_not_agree_fails(line):
    rules = [{"weights": "binary"}]
    with pytest.raises(StageFailed, match="of the labels agree"):
        line.run(stages__res=_RES, stages__int8={**_INT8, "rules": rules, "agreement": 1.0})


def test_the_accuracy_may_decide_instead_of_the_labels(line):
    """A model in two values is often wrong where the float one is right."""
    binary = {**_INT8, "rules": [{"weights": "binary"}], "float_edges": False}
    kept = line.run(
        stages__res=_RES, stages__bin={**binary, "agreement": 1.0, "accuracy_drop": 1.0}
    )
    (said,) = Artifact.open(kept["bin"].folder, kept["bin"].stage).manifest["parity"]
    assert (said["allowed_drop"], said["required_agreement"]) == (1.0, None)
    assert said["agreement"] < 1.0
    with pytest.raises(
        StageFailed, match=r"of the labels are right, of the live model .*: more than"
    ):
        line.run(stages__res=_RES, stages__bin={**binary, "accuracy_drop": -1.0})


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        (
            {"kind": "shrink", "model": "int8", "sparsity": 0.5, "examples": 64},
            "a quantized model is not shrunk",
        ),
        ({**_INT8, "model": "int8"}, "again.model: int8 is quantized already"),
    ],
)
def test_what_quantized_models_are_not_for(line, stage, message):
    with pytest.raises(BadInput, match=message):
        line.run(stages__res=_RES, stages__int8=_INT8, stages__again=stage)


def _damaged(model):
    """Other weights in one layer."""
    params = jax.tree.map(lambda leaf: leaf, model.variables["params"])
    conv = params["encoder"]["stage1_block0"]["first"]["conv"]
    conv["kernel"] = conv["kernel"][::-1, :, ::-1]
    other = dataclasses.replace(model, variables={**model.variables, "params": params})
    return dataclasses.replace(other, predict=other.in_float)


class DamagedONNX(export.ONNX):
    def write(self, model, path):
        super().write(_damaged(model), path)


class DamagedLiteRT(export.LiteRT):
    def write(self, model, path):
        super().write(_damaged(model), path)


@pytest.mark.parametrize("format", ["ONNX"] + ["LiteRT"] * LITERT)
@pytest.mark.parametrize("model", ["int8", "res"])
def test_the_layer_that_differs_is_named(line, model, format):
    """A file with other weights in one layer: what goes into the next one is otherwise."""
    name = "encoder/stage1_block0/second/conv/kernel"
    with pytest.raises(StageFailed, match=f"; what goes into {name} differs most, by [01]."):
        line.run(
            stages__res=_RES,
            stages__int8=_INT8,
            stages__bad={
                "kind": "export",
                "model": model,
                "formats": [{"function": f"{__name__}:Damaged{format}"}],
                "agreement": 1.0,
                "tolerance": 1e-9,
            },
        )
