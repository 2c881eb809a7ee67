"""Results of other seeds, put together: every figure against that of one run of all seeds."""

import copy
import json
import statistics

import pytest
from scipy import stats

from kdjax.commands import tables as command
from kdjax.report import results
from kdjax.types import BadInput

EACH = {0: (0.61, 0.5), 1: (0.70, 0.52), 2: (0.64, 0.51), 7: (0.69, 0.49)}
"""Of each seed the accuracy of a student, and of the same network alone."""


def _row(stage, value, **more):
    score = {"value": value, "ci95": [value - 0.05, value + 0.05]}
    return {
        "stage": stage,
        "model": "cnn",
        "params": 100,
        "nonzero_params": 90,
        "scores": {"accuracy": score},
        "primary": "accuracy",
        "seeds": 1,
        **more,
    }


def _of(seed, *, say="seeds=1"):
    student, alone = EACH[seed]
    return {
        "command": f"kdjax --config=configs/x.py:{say},few --workdir=DIR",
        "seeds": [seed],
        "dataset": {"name": "cifar10"},
        "device": "1 x cpu",
        "versions": {"jax": "0.10.2"},
        "hours": 0.5,
        "minutes_a_seed": 30.0,
        "wall_seconds": {"student": 1200.0, "alone": 600.0},
        "rows": {
            "student": _row(
                "student", student, bytes_on_disk=1000 + seed, latency_ms_p50=2.0 + seed
            ),
            "alone": _row("alone", alone),
        },
    }


def _joined(*seeds):
    return results.joined({f"{seed}.json": _of(seed) for seed in seeds})


def test_scores_are_those_of_all_seeds_in_their_order():
    found = _joined(7, 0, 2, 1)
    assert found["seeds"] == [0, 1, 2, 7]
    values = [EACH[seed][0] for seed in (0, 1, 2, 7)]
    score = found["rows"]["student"]["scores"]["accuracy"]
    assert list(score["per_seed"]) == values
    assert score["value"] == pytest.approx(statistics.fmean(values))
    low, high = stats.t.interval(0.95, 3, loc=statistics.fmean(values), scale=stats.sem(values))
    assert score["ci95"] == pytest.approx((low, high))
    row = found["rows"]["student"]
    assert (row["seeds"], row["bytes_on_disk"], row["latency_ms_p50"]) == (4, 1002, 3.5)
    assert (found["hours"], found["minutes_a_seed"]) == (2.0, 30.0)
    assert found["wall_seconds"] == {"student": 4800.0, "alone": 2400.0}
    assert len(found["command"]) == 4


def test_in_several_steps_as_at_once(tmp_path):
    for seed in EACH:
        (tmp_path / f"{seed}.json").write_text(json.dumps(_of(seed)))

    def join(*names):
        assert command.main(["join", *(str(tmp_path / f"{name}.json") for name in names)]) == 0
        return json.loads((tmp_path / f"{names[-1]}.json").read_text())

    join(2, 0, "two")
    join(7, 1, "others")
    steps, once = join("two", "others", "steps"), join(0, 1, 2, 7, "once")
    assert sorted(steps.pop("command")) == sorted(once.pop("command"))
    latency = [found["rows"]["student"].pop("latency_ms_p50") for found in (steps, once)]
    assert latency[0] == pytest.approx(3.5, abs=2)  # a median of medians
    assert steps == once


def test_the_same_file_twice_is_refused(tmp_path):
    """Not taken once: whoever names it twice has forgotten another."""
    (path := tmp_path / "a.json").write_text(json.dumps(_of(0)))
    with pytest.raises(BadInput, match=r"a\.json: named twice; name each file once"):
        command.main(["join", str(path), str(path), str(tmp_path / "out.json")])
    assert not (tmp_path / "out.json").exists()


@pytest.mark.parametrize(
    "more",
    [
        "--config.seeds=[1]",
        "'--config.seeds=[1,2]' --jobs=2",  # as a shell needs it, and a report has it
        "--config.seeds '[1, 2]' --jobs 2",
        "--jobs=2",
    ],
)
def test_seeds_are_said_in_other_places_of_the_same_command(more):
    one, other = _of(0, say="seeds=1"), _of(1)
    other["command"] = f"kdjax --config=configs/x.py:few,seeds=2 --workdir=DIR {more}"
    assert results.joined({"a": one, "b": other})["seeds"] == [0, 1]


def test_a_row_whose_stage_is_one_for_all_seeds_is_that_of_each():
    several = _joined(0, 1)
    several["rows"]["alone"] = _row("alone", 0.5)
    found = results.joined({"a": several, "b": _of(2)})
    assert list(found["rows"]["alone"]["scores"]["accuracy"]["per_seed"]) == [0.5, 0.5, 0.51]


def test_what_differs_is_listed():
    other = _of(1)
    other["device"] = "4 x tpu"
    found = results.joined({"a": _of(0), "b": other})
    assert found["device"] == ["1 x cpu", "4 x tpu"]
    assert found["versions"] == {"jax": "0.10.2"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda one: one.update(seeds=[0]), "b.json: seeds: 0 is in a.json, too; join other seeds"),
        (lambda one: one.update(dataset={"name": "mnist"}), "b.json: dataset: not that of a.json"),
        (lambda one: one.update(command="kdjax --config=y"), "b.json: command: not that of a.json"),
        (lambda one: one["rows"].pop("alone"), "b.json: rows: not that of a.json"),
        (
            lambda one: one["rows"]["alone"].update(model="vit"),
            "rows.alone: rows of different model",
        ),
        (lambda one: one.pop("rows"), "b.json: rows: missing; name files that"),
        (lambda one: one.update(seeds=1), "b.json: seeds: of another kind"),
        (lambda one: one["rows"]["alone"].pop("params"), "b.json: rows.alone.params"),
    ],
)
def test_what_does_not_belong_together_is_refused(change, message):
    other = copy.deepcopy(_of(1))
    change(other)
    with pytest.raises(BadInput) as caught:
        results.joined({"a.json": _of(0), "b.json": other})
    assert message in str(caught.value)
