"""Bits and units that are taken away one at a time, and the numbers that a budget leaves."""

import re

import numpy as np
import pytest

from kdjax import train, tree
from kdjax.artifacts import Artifact
from kdjax.artifacts.model import load
from kdjax.contexts import Context
from kdjax.stages.mixed import mixed_rules
from kdjax.types import BadInput

_NUMBERS = [
    {"activations": None},
    {"weights": "int4", "activations": None},
    {"weights": "binary", "activations": "int8"},
]
_BEARS = {
    "kind": "sensitivity",
    "model": "student",
    "examples": 64,
    "sparsities": [0.5],
    "numbers": _NUMBERS,
}
LAYERS = ["encoder/block0/conv/kernel", "encoder/block1/conv/kernel", "classifier/kernel"]


def _said(task):
    return Artifact.open(task.folder, task.stage).manifest["sensitivity"]


@pytest.fixture(scope="module")
def bears(line):
    return line.run(stages__bears=_BEARS)["bears"]


def test_each_layer_in_each_of_the_numbers(bears):
    said = _said(bears)
    assert list(said["layers"]) == LAYERS
    for found in said["layers"].values():
        assert list(found) == ["int8 weights", "int4 weights", "binary"]
        assert 0 <= found["int8 weights"] < found["int4 weights"] < found["binary"]
    assert said["numbers"]["binary"] == {
        "weights": "binary",
        "activations": "int8",
        "scale": "absmax",
        "smooth": None,
    }


def test_units_are_what_they_are_without_numbers(bears, line):
    alone = line.run(stages__bears={**_BEARS, "numbers": []})["bears"]
    said, expected = _said(bears)["curves"], _said(alone)["curves"]
    assert said.keys() == expected.keys()
    for name, curve in expected.items():
        np.testing.assert_allclose(said[name]["0.5"], curve["0.5"], rtol=1e-4)
    assert _said(alone)["layers"] == {}
    without = {**_BEARS, "sparsities": []}
    assert _said(line.run(stages__bears=without)["bears"])["curves"] == {}


@pytest.mark.parametrize(
    "signal", [{"name": "logits"}, {"name": "top_k", "k": 3, "temperatures": [4.0]}]
)
def test_a_cached_teacher_is_what_it_is_held_against(line, signal):
    """Taking a student's bits away changes its distance from the teacher, not from itself."""
    cache = {"stages__cache__signal": signal}
    taught = {**_BEARS, "against": "teacher", "cache": "cache", "numbers": _NUMBERS[2:]}
    if signal["name"] == "top_k":
        cache["stages__student__temperature"] = 4.0
    said = _said(line.run(stages__bears=taught, **cache)["bears"])
    assert said["against"] == "teacher"
    itself = _said(
        line.run(stages__bears={**taught, "against": "predictions", "cache": None}, **cache)[
            "bears"
        ]
    )
    for layer in LAYERS:
        assert said["layers"][layer] != itself["layers"][layer]
        assert np.isfinite(said["layers"][layer]["binary"])


def _budget(**budget):
    return {
        "kind": "quantize",
        "model": "student",
        "sensitivity": "bears",
        "budget": budget,
        "calibration_examples": 64,
        "agreement": 0.0,
        "float_edges": False,
    }


def test_numbers_are_mixed_to_meet_a_budget_of_bytes(bears, line):
    hurts = _said(bears)["layers"]
    _, variables = load(_artifact(line.run()["student"]), field="here")
    params = tree.size(variables["params"])
    found = {}
    for most in (3 * params, 2 * params, round(1.4 * params), round(1.1 * params)):
        tasks = line.run(stages__bears=_BEARS, stages__mixed=_budget(bytes=most))
        artifact = _artifact(tasks["mixed"])
        spec, _ = load(artifact, field="here")
        said = artifact.manifest["quantized"]
        assert said["budget"] == {"bytes": most}
        assert 0.5 * most < said["spent"]["bytes"] <= most
        hurt = sum(hurts[layer][rule.name] for layer, rule in spec.rules.items())
        found[most] = hurt, spec.name
    hurt = [h for h, _ in found.values()]
    assert hurt == sorted(hurt)
    assert hurt[0] < hurt[-1]
    assert len({name for _, name in found.values()}) > 1
    again = _artifact(tasks["mixed"]).manifest["rows"][0]
    assert again["model"] == spec.name


def _artifact(task):
    return Artifact.open(task.folder, task.stage)


def _slow(rules):
    """Ten milliseconds in float, less with fewer bits, but never as little as the parts promise."""
    saved = {"int8 weights": 1.0, "int4 weights": 2.0, "binary": 3.0}
    return 10.0 - 0.8 * sum(saved[rule.name] for rule in rules.values()) ** 0.97


@pytest.mark.parametrize("most", [9.0, 7.0, 4.0, 3.3])
def test_numbers_are_mixed_to_meet_a_budget_of_milliseconds(bears, line, most):
    run, tasks, splits = line.plan(stages__bears=_BEARS, stages__mixed=_budget(latency_ms=most))
    artifacts = {task.name: _artifact(task) for task in tasks if task.name in ("bears", "student")}
    folder = tasks[-1].folder
    context = Context(run, "mixed", 0, folder, artifacts, splits, train.choose("single"))
    spec, variables = load(artifacts["student"], field="here")
    asked = []

    def latency(rules):
        asked.append(rules)
        return _slow(rules)

    rules, said = mixed_rules(context, run.stages["mixed"], spec, variables, latency)
    assert said["spent"]["latency_ms"] == _slow(rules) <= most
    assert asked[-1] == rules
    # Not far below: with one step less of any layer it would be too slow, or hurt more.
    hurts = _said(bears)["layers"]
    hurt = sum(hurts[layer][rule.name] for layer, rule in rules.items())
    worst = sum(found["binary"] for found in hurts.values())
    assert hurt < 0.9 * worst or most == 3.3  # where only all of the fewest bits do


def test_a_budget_of_milliseconds_is_measured_in_the_runtime(bears, line):
    with pytest.raises(BadInput, match="budget: the model meets it in float"):
        line.run(stages__bears=_BEARS, stages__mixed=_budget(latency_ms=1000.0))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"stages__bears__sparsities": [], "stages__bears__numbers": []},
            "nothing would be measured",
        ),
        ({"stages__bears__numbers": [{"pattern": "no.*"}]}, "matches no layer"),
        ({"stages__bears__numbers": [{"pattern": "("}]}, "no regular expression"),
        ({"stages__bears__numbers": [{}, {}]}, "bears.numbers: .* stands twice"),
        ({"stages__bears__numbers": [{"weights": None}]}, "float is what a layer is held against"),
        ({"stages__bears__against": "teacher"}, r"bears.cache: goes with against=teacher"),
        ({"stages__bears__cache": "cache"}, r"bears.cache: goes with against=teacher"),
        (
            {"stages__bears__against": "teacher", "stages__bears__cache": "teacher"},
            r"bears.cache: teacher is not a stage of kind cache",
        ),
        ({"stages__mixed": _budget(bytes=10**6)}, "mixed.budget: the model meets it in float"),
        ({"stages__mixed": _budget(bytes=10)}, "mixed.budget: 10 cannot be met; the cheapest"),
        (
            {"stages__mixed": _budget(latency_ms=1e-9)},
            "mixed.budget: 1e-09 ms cannot be met; the last",
        ),
        ({"stages__mixed": _budget(flops=10)}, "mixed.budget: give bytes or latency_ms"),
        ({"stages__mixed": _budget()}, "mixed.budget: give one of"),
        (
            {"stages__mixed": {**_budget(bytes=9999), "sensitivity": "teacher"}},
            "teacher is not a stage of kind sensitivity of student",
        ),
        (
            {"stages__mixed": {**_budget(bytes=9999), "sensitivity": None}},
            "mixed.budget: goes with sensitivity",
        ),
        (
            {"stages__mixed": {**_budget(bytes=9999), "rules": [{"weights": "int4"}]}},
            "mixed.rules: the numbers are those of bears",
        ),
    ],
)
def test_bad_input_is_one_line(bears, line, changes, message):
    with pytest.raises(BadInput, match=message) as raised:
        line.run(**{"stages__bears": _BEARS, **changes})
    assert not re.search(r"\n", str(raised.value))
