"""Every way to prune, through the stages, and counted in what is on disk."""

import itertools

import jax
import numpy as np
import pytest

from kdjax import tree
from kdjax.artifacts import Artifact
from kdjax.artifacts.model import load
from kdjax.types import BadInput

_STUDENT = {
    "kind": "distill",
    "cache": "cache",
    "encoder": {"name": "cnn", "widths": [4, 8]},
    "steps": 6,
    "batch": 32,
    "optimizer": {"name": "sgd", "learning_rate": 0.05, "momentum": 0.9, "weight_decay": 0.01},
}
_GRADUAL = {"name": "gradual", "sparsity": 0.5, "begin_step": 0, "end_step": 4, "every_steps": 2}
_SPARSE = {"name": "sparse_training", "sparsity": 0.5, "end_step": 4, "every_steps": 1}
_INNER = "encoder/block1/conv/kernel|classifier/kernel"  # inputs that four divides


def _params(task):
    artifact = Artifact.open(task.folder, task.stage)
    params = load(artifact, field="here")[1]["params"]
    return artifact.manifest, {n: np.asarray(v) for n, v in tree.named_leaves(params).items()}


@pytest.mark.parametrize(
    "prune",
    [
        {**_GRADUAL, "schedule": "linear", "score": "saliency"},
        # Schedules and allocations by themselves are in `tests/prune`.
        pytest.param(
            {**_GRADUAL, "schedule": "one_shot", "score": "random", "allocation": "erk"},
            marks=pytest.mark.thorough,
        ),
        {**_GRADUAL, "schedule": "periodic", "rounds": 2, "allocation": "global"},
        {
            **_GRADUAL,
            "allocation": [["classifier/kernel", 0.25], [".*/kernel", 0.5]],
            "pattern": {"name": "blocks", "shape": [1, 2]},
        },
        {**_GRADUAL, "sparsity": None, "pattern": {"name": "n_m"}, "prunable": _INNER},
        _SPARSE,
        pytest.param(
            {**_SPARSE, "method": "set", "allocation": "uniform"}, marks=pytest.mark.thorough
        ),
    ],
    ids=lambda prune: "-".join(str(prune.get(k, "")) for k in ("name", "schedule", "method")),
)
def test_the_target_is_on_disk_to_the_count(line, prune):
    manifest, params = _params(line.run(stages__student={**_STUDENT, "prune": prune})["student"])
    zeros = {name: int((params[name] == 0).sum()) for name in manifest["masked"]}
    sizes = {name: params[name].size for name in manifest["masked"]}
    assert sum(zeros.values()) == manifest["pruned"] == manifest["zeros"]
    assert sum(sizes.values()) == manifest["prunable"]
    allocation = prune.get("allocation", "erk" if prune is _SPARSE else "uniform")
    if allocation == "uniform":
        assert zeros == {name: round(0.5 * size) for name, size in sizes.items()}
    elif isinstance(allocation, list):
        assert zeros["classifier/kernel"] == round(0.25 * sizes["classifier/kernel"])
    else:  # one rounding for each tensor
        assert abs(manifest["pruned"] - 0.5 * manifest["prunable"]) <= len(sizes)


_OPTIMIZERS = {
    "sgd": {
        "optimizer": {
            "name": "sgd",
            "learning_rate": 0.1,
            "nesterov": True,
            "weight_decay": 0.1,
            "clip_norm": 1.0,
        }
    },
    "adamw": {
        "optimizer": {"name": "adamw", "learning_rate": 0.01, "weight_decay": 0.1},
        "accumulate": 2,
        "ema": 0.9,
    },
    "lars": {"optimizer": {"name": "lars", "learning_rate": 0.5, "weight_decay": 0.1}, "ema": 0.5},
}
_OTHERS = {
    "scratch": {
        "kind": "finetune",
        "encoder": {"name": "cnn", "widths": [4, 8]},
        "views": {"recipe": "crop_flip", "flip": 0.0},
    },
    "embedder": {
        "kind": "distill_encoder",
        "cache": "said",
        "encoder": {"name": "cnn", "widths": [4, 8]},
    },
}
_SAID = {
    "kind": "cache",
    "teacher": "pretrain",
    "recipe": {"recipe": "crop_flip", "shift": 1, "flip": 0.0},
    "views": 1,
    "signal": {"name": "embedding"},
}


# Each stage and each optimizer; the rest of their products is for a thorough run.
_EACH = {
    ("pretrain", "lars"),
    ("teacher", "sgd"),
    ("student", "adamw"),
    ("scratch", "adamw"),
    ("embedder", "lars"),
}


@pytest.mark.parametrize(
    ("stage", "optimizer"),
    [
        pytest.param(*both, marks=() if both in _EACH else pytest.mark.thorough)
        for both in itertools.product(("pretrain", "teacher", "student", *_OTHERS), _OPTIMIZERS)
    ],
)
def test_zeros_stay_zero_in_every_stage_under_every_optimizer(line, stage, optimizer):
    """Through momentum, decay, clipping, averages and parts of a batch, to the count on disk."""
    changes = {"stages__said": _SAID}
    if stage in _OTHERS:
        changes[f"stages__{stage}"] = _OTHERS[stage]
    how = {"steps": 6, "batch": 32, "prune": _GRADUAL, **_OPTIMIZERS[optimizer]}
    changes |= {f"stages__{stage}__{field}": value for field, value in how.items()}
    task = line.run(only=[stage], **changes)[stage]
    manifest = Artifact.open(task.folder, task.stage).manifest
    assert manifest["masked"]
    # Half of each kernel, and each has an even number of weights.
    assert manifest["pruned"] == manifest["zeros"] == manifest["prunable"] // 2


def test_a_stage_that_begins_from_a_pruned_model_keeps_its_zeros(line):
    after = {k: v for k, v in _STUDENT.items() if k != "encoder"} | {"start_from": "student"}
    more = {**after, "prune": {**_GRADUAL, "sparsity": 0.75}}
    tasks = line.run(
        stages__student={**_STUDENT, "prune": _GRADUAL}, stages__after=after, stages__more=more
    )
    before, first = _params(tasks["student"])
    kept, second = _params(tasks["after"])
    assert kept["masked"] == before["masked"]
    assert kept["pruned"] == before["pruned"]
    further, third = _params(tasks["more"])
    for name in before["masked"]:
        np.testing.assert_array_equal(second[name] == 0, first[name] == 0)
        assert (third[name][first[name] == 0] == 0).all()
    assert further["pruned"] == sum(round(0.75 * first[n].size) for n in before["masked"])


def test_a_lottery_ticket_goes_back_to_the_early_parameters(line):
    """Two rounds, and the same masks on fresh parameters."""
    after = {k: v for k, v in _STUDENT.items() if k != "encoder"}
    # So small a rate that the parameters in the end tell where they began.
    still = {"optimizer": {"name": "sgd", "learning_rate": 1e-9}}
    ticket = {"name": "ticket", "sparsity": 0.5}
    tasks = line.run(
        stages__student={**_STUDENT, "rewind_step": 2},
        stages__one={**after, **still, "start_from": "student", "prune": ticket},
        stages__two={
            **after,
            **still,
            "start_from": "one",
            "prune": {**ticket, "sparsity": 0.75, "allocation": "global"},
        },
        stages__fresh={
            **after,
            **still,
            "start_from": "student",
            "prune": {**ticket, "fresh": True},
        },
    )
    early = _params(line.run(stages__student={**_STUDENT, "steps": 2})["student"])[1]
    end = _params(tasks["student"])[1]
    first, one = _params(tasks["one"])
    second, two = _params(tasks["two"])
    fresh = _params(tasks["fresh"])[1]
    for name in first["masked"]:
        kept = one[name] != 0
        assert (~kept).sum() == round(0.5 * kept.size)
        assert np.abs(end[name][kept]).min() >= np.abs(end[name][~kept]).max()
        again = two[name] != 0
        assert not (again & ~kept).any()
        np.testing.assert_array_equal(fresh[name] != 0, kept)
        assert not np.allclose(fresh[name][kept], one[name][kept])
    assert second["pruned"] == round(0.75 * second["prunable"])
    assert set(early) == set(one)


def test_rewinding_keeps_the_parameters_of_that_step(line):
    """Constant rate: two steps of six are the two steps of a run of two."""
    constant = {"name": "sgd", "learning_rate": 0.05, "schedule": {"name": "constant"}}
    student = {**_STUDENT, "optimizer": constant}
    task = line.run(stages__student={**student, "rewind_step": 2})["student"]
    artifact = Artifact.open(task.folder, task.stage)
    spec, variables = load(artifact, field="here")
    early = artifact.variables(spec.abstract(), name="early")
    short = line.run(stages__student={**student, "steps": 2})["student"]
    expected = load(Artifact.open(short.folder, short.stage), field="here")[1]
    jax.tree.map(np.testing.assert_array_equal, early, expected)
    assert not np.array_equal(
        early["params"]["classifier"]["kernel"], variables["params"]["classifier"]["kernel"]
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"prune": {**_GRADUAL, "sparsity": 1.0}},
            r"student.prune.sparsity: 1.0 is not in \[0, 1\)",
        ),
        ({"prune": {**_GRADUAL, "sparsity": None}}, "student.prune.sparsity: missing"),
        (
            {"prune": {**_GRADUAL, "prunable": "nothing"}},
            "prunable: 'nothing' matches no parameter",
        ),
        (
            {"prune": {**_GRADUAL, "sparsity": None, "pattern": {"name": "n_m", "n": 2, "m": 4}}},
            "student.*4 does not divide|student.* does not divide",
        ),
        (
            {"prune": {**_GRADUAL, "end_step": 6}},
            r"prune.end_step: 6 is not in \[0, steps\)",
        ),
        ({"prune": {**_GRADUAL, "every_steps": 0}}, "prune.every_steps: 0 is not in"),
        ({"prune": {**_GRADUAL, "allocation": [["x", 0.5]]}}, "student.*'x'"),
        ({"prune": {**_SPARSE, "sparsity": 1.5}}, "student.*1.5"),
        (
            {"prune": {"name": "ticket", "sparsity": 0.5}},
            "student.prune: a ticket begins from a stage",
        ),
        ({"rewind_step": 9}, r"student.rewind_step: 9 is not in \[0, steps\)"),
        (
            {"prune": {**_GRADUAL, "schedule": "qubic"}},
            "student.prune.schedule: 'qubic' is not one of",
        ),
    ],
)
def test_bad_pruning(line, changes, message):
    with pytest.raises(BadInput, match=message):
        line.run(stages__student={**_STUDENT, **changes})
