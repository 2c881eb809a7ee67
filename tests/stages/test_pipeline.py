"""The graph of stages: order, fingerprints, what is skipped."""

import dataclasses
import json

import numpy as np
import pytest

from kdjax import config, lock, parse, pipeline
from kdjax.pipeline import running
from kdjax.teacher_targets.audit import audit
from kdjax.train import recorder
from kdjax.types import BadInput
from tests.stages.conftest import LINE, changed


def _marks(line, **changes):
    _, tasks, _ = line.plan(**changes)
    return {task.name: task.fingerprint for task in tasks}


def test_order_is_the_configs_own(line):
    run, tasks, _ = line.plan()
    assert [task.name for task in tasks] == ["pretrain", "teacher", "cache", "student"]
    assert pipeline.order(run) == ["pretrain", "teacher", "cache", "student"]


def test_a_change_reaches_what_is_made_from_it(line):
    before = _marks(line)
    after = _marks(line, stages__cache__views=3)
    assert after["teacher"] == before["teacher"]
    assert after["cache"] != before["cache"]
    assert after["student"] != before["student"]


@pytest.mark.parametrize(
    "changes",
    [
        {"stages__student__log_every_steps": 3},
        {"stages__student__checkpoint_every_steps": 7},
        {"stages__cache__batch": 17},
        {"data__mode": "stream"},
        {"parallel": "pmap"},
    ],
)
def test_where_and_how_is_no_part_of_it(line, changes):
    assert _marks(line, **changes) == _marks(line)


@pytest.mark.parametrize(
    "changes",
    [
        {"data__labels_per_class": 4},
        {"data__test_split": "test"},
        {"data__mean": [0.5]},
        {"stages__student__temperature": 1.0},
        {"stages__student__optimizer__learning_rate": 0.1},
        {"seeds": [1]},
    ],
)
def test_what_is_computed_is_part_of_it(line, changes):
    assert _marks(line, **changes)["student"] != _marks(line)["student"]


def test_live_needs_no_cache_but_keeps_its_views(line):
    live = _marks(line, stages__student__live=True)
    assert "cache" not in live
    assert (
        live["student"]
        != _marks(line, stages__student__live=True, stages__cache__views=3)["student"]
    )


def test_only_what_is_asked_for_and_what_it_needs(line):
    _, tasks, _ = line.plan(only=["teacher"])
    assert [task.name for task in tasks] == ["pretrain", "teacher"]
    with pytest.raises(BadInput, match="no stage 'techer'; did you mean teacher"):
        line.plan(only=["techer"])


def test_unknown_and_circular_stages(line):
    with pytest.raises(
        BadInput, match=r"config.stages.student.cache: there is no stage 'cahce'; did you"
    ):
        line.plan(stages__student__cache="cahce")
    with pytest.raises(
        BadInput,
        match=r"^config.stages.student.start_from: they need each other in a circle: .*student",
    ):
        line.plan(stages__student__start_from="student", stages__student__encoder=None)


def test_done_is_skipped_and_seeds_are_apart(line, capsys):
    first = line.run()
    stamp = (first["student"].folder / "manifest.json").stat().mtime
    capsys.readouterr()
    # One that was killed after the manifest and before the lock was given back.
    gone = dataclasses.replace(lock.Holder.this(), pid=2**22 + 1)
    first["cache"].lock.write_text(json.dumps(dataclasses.asdict(gone)))
    again = line.run()
    assert not first["cache"].lock.exists()
    said = capsys.readouterr().err.splitlines()
    assert said == [f"{name} (seed 0): done before, skipped" for name in first]
    assert (again["student"].folder / "manifest.json").stat().mtime == stamp
    _, tasks, _ = line.plan(seeds=[0, 1])
    assert len({task.folder for task in tasks}) == 8
    assert [task.done for task in tasks] == [True] * 4 + [False] * 4


def test_twins_are_found_by_their_networks_and_labels_and_not_by_their_names():
    line = changed(
        LINE,
        stages__zero={
            **LINE["stages"]["teacher"],
            "start_from": None,
            "encoder": LINE["stages"]["student"]["encoder"],
        },
    )
    all_labels = {**line["stages"]["zero"], "labels_share": 1.0}
    other = {**line["stages"]["zero"], "encoder": {"name": "cnn", "widths": [4, 9]}}
    line["stages"] |= {"all_labels": all_labels, "other": other}
    line["stages"]["tuned"] = {**LINE["stages"]["student"], "start_from": "student"}
    del line["stages"]["tuned"]["encoder"]
    found = pipeline.twins(parse.parse(config.Run, line))
    assert found == [("student", "zero"), ("tuned", "zero")]
    # One that looks at no label itself has those of its teacher.
    line["stages"]["student"] = {**line["stages"]["student"], "ce_weight": 0.0}
    line["stages"]["teacher"] = {**line["stages"]["teacher"], "labels_share": 1.0}
    found = pipeline.twins(parse.parse(config.Run, line))
    assert found == [("student", "all_labels"), ("tuned", "zero")]
    # Layers of an encoder that has seen no label are a beginning, and those of a teacher are not.
    for stage, pairs in (("pretrain", found), ("teacher", [("tuned", "zero")])):
        begun = {**all_labels["encoder"], "weights": {"stage": stage}}
        line["stages"]["all_labels"] = {**all_labels, "encoder": begun}
        assert pipeline.twins(parse.parse(config.Run, line)) == pairs


SHARED = {
    "data__labels_per_class": None,
    "stages__pretrain__seed": 5,
    "stages__teacher__seed": 5,
    "stages__cache__seed": 5,
}
"""One teacher, of seed 5, whichever seed the student is of."""


def test_one_teacher_of_all_seeds_is_the_one_that_its_seed_alone_makes(line):
    _, alone, _ = line.plan(data__labels_per_class=None, seeds=[5])
    _, tasks, _ = line.plan(seeds=[0, 1, 5], **SHARED)
    assert [(task.name, task.seed) for task in tasks] == [
        *((name, 5) for name in ("pretrain", "teacher", "cache")),
        *(("student", seed) for seed in (0, 1, 5)),
    ]
    shared = {(task.name, task.seed): task.fingerprint for task in tasks}
    assert {(t.name, t.seed): t.fingerprint for t in alone}.items() <= shared.items()
    assert all(task.needs[0].seed == 5 for task in tasks if task.name == "student")


def test_students_of_any_seed_see_the_views_that_the_one_cache_holds(line):
    """As a live teacher of the same views: what the cache is bound to would not tell."""
    cached = line.run(seeds=[1], **SHARED)
    live = line.run(seeds=[1], **SHARED, stages__student__live=True)
    losses = [
        [entry["loss"] for entry in recorder.read(done["student"].folder / "metrics.jsonl")]
        for done in (cached, live)
    ]
    assert len(losses[0]) == 30
    run, _, splits = line.plan(seeds=[1], **SHARED)
    left = pipeline.finished(run, line.workdir, splits)
    assert left.seeds == [1]
    assert left.missing == []  # no student of seed 5, for whom nobody asked
    np.testing.assert_allclose(*losses, rtol=1e-5)
    found = audit(cached["cache"].folder, samples=32, seed=0)
    assert found.difference <= found.tolerance


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {**SHARED, "stages__teacher__seed": None},
            r"^config.stages.cache.seed, config.stages.teacher.seed: cache is run for seed 5 alone",
        ),
        (
            {**SHARED, "stages__teacher__seed": 6},
            r"^config.stages.teacher.seed, config.stages.pretrain.seed: teacher is run for seed 6",
        ),
        (
            {**SHARED, "data__labels_per_class": 3},
            "^config.stages.teacher.seed: 5, and which labels may be used is drawn by the seed",
        ),
    ],
)
def test_what_no_seed_can_share(line, changes, message):
    with pytest.raises(BadInput, match=message):
        line.plan(seeds=[0, 1], **changes)
    if "labels" in message:
        line.plan(seeds=[5], **changes)
        own = {"stages__teacher__seed": None, "stages__cache__seed": None}
        line.plan(seeds=[0, 1], **{**changes, **own})  # an encoder that has seen no label


def test_jobs_of_an_array_wait_for_what_they_share(line):
    _, tasks, _ = line.plan(seeds=[2], **SHARED)
    shared, own = tasks[0], tasks[-1]
    shared.lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.held(shared.lock, waiting=print):
        running._refuse_busy(tasks)
    with lock.held(own.lock, waiting=print), pytest.raises(lock.Busy, match="student"):
        running._refuse_busy(tasks)
