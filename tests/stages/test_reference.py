"""Models are compared with another model of the run, where test examples have labels and where not."""

import json

import numpy as np
import pytest
from etils import epath

from kdjax import config, data, parse, pipeline
from kdjax.artifacts import Artifact
from kdjax.artifacts.model import load
from kdjax.commands.report import write_report
from kdjax.contexts import Splits
from kdjax.types import BadInput

_SEEN = {"recipe": "eval"}
_TRAINING = {
    "steps": 4,
    "batch": 16,
    "optimizer": {"name": "sgd", "learning_rate": 0.05},
}
_NET = {"name": "cnn", "widths": [4, 4]}


def pictures(split, *, labelled=True, n=40):
    """Images whose class is their brightness; without labels, if asked, those of the test."""
    rng = np.random.default_rng([split == "test", 0])
    labels = np.arange(n) % 3
    images = rng.integers(0, 85, (n, 6, 6, 1)) + 85 * labels[:, None, None, None]
    shown = labels if labelled or split == "train" else np.full(n, -1)
    return data.from_arrays(images.astype(np.uint8), shown, classes=3, name=f"pictures {split}")


def _run(*, labelled, reference: str | None = "teacher", **more):
    return parse.parse(
        config.Run,
        {
            "name": "reference",
            "data": {"name": "pictures", "source": {"function": pictures, "labelled": labelled}},
            "stages": {
                "teacher": {"kind": "finetune", "encoder": _NET, "views": _SEEN, **_TRAINING},
                "cache": {"kind": "cache", "teacher": "teacher", "recipe": _SEEN, "views": 1},
                "student": {"kind": "distill", "cache": "cache", "encoder": _NET, **_TRAINING},
                "other": {"kind": "finetune", "encoder": _NET, "views": _SEEN, **_TRAINING},
                "file": {"kind": "export", "model": "student", "formats": ["stablehlo"]},
            },
            "reference": reference,
            **more,
        },
    )


def _finish(run, folder):
    splits = Splits(run.data)
    tasks = pipeline.plan(run, folder, splits)
    pipeline.execute(run, tasks, splits)
    return splits, {task.name: task for task in tasks}


def _rows(task):
    return {row["stage"]: row for row in Artifact.open(task.folder, task.stage).manifest["rows"]}


@pytest.fixture(scope="module")
def unlabelled(tmp_path_factory):
    run, folder = _run(labelled=False), epath.Path(tmp_path_factory.mktemp("unlabelled"))
    splits, tasks = _finish(run, folder)
    return run, folder, splits, tasks


def _said(task, inputs):
    spec, variables = load(Artifact.open(task.folder, task.stage), field="")
    return np.asarray(spec.compiled(fast=False)(variables, inputs)).argmax(-1)


def test_without_labels_the_only_score_is_the_agreement(unlabelled):
    _, _, splits, tasks = unlabelled
    teacher = _said(tasks["teacher"], splits.test_inputs)
    for name in ("teacher", "student", "other"):
        (row,) = _rows(tasks[name]).values()
        assert list(row["scores"]) == ["agreement"] == [row["primary"]]
        expected = (_said(tasks[name], splits.test_inputs) == teacher).mean()
        assert row["scores"]["agreement"]["value"] == pytest.approx(expected)
    (file,) = _rows(tasks["file"]).values()
    (live,) = _rows(tasks["student"]).values()
    assert file["scores"] == live["scores"]


def test_the_report_of_models_without_labels(unlabelled):
    run, folder, splits, _ = unlabelled
    write_report(run, folder, splits, command="")
    found = json.loads((folder / "report.json").read_text())
    assert {row["primary"] for row in found["rows"]} == {"agreement"}
    assert "agreement" in (folder / "report.html").read_text()
    (parity,) = found["parity"]
    assert parity["accuracy_drop"] is None


def test_with_labels_it_is_one_score_more_and_nothing_is_trained_again(tmp_path):
    folder = epath.Path(tmp_path)
    plain = _run(labelled=True, reference=None)
    _, before = _finish(plain, folder)
    _, tasks = _finish(_run(labelled=True), folder)
    for name in ("teacher", "student", "other"):
        assert tasks[name].folder == before[name].folder  # measured again, as it is
        (row,) = _rows(tasks[name]).values()
        assert row["primary"] == "accuracy"
        assert "agreement" in row["scores"]
    assert tasks["file"].folder != before["file"].folder  # whose rows are all that it leaves


def test_what_the_reference_is_made_from_is_not_compared(tmp_path):
    run = _run(labelled=True, reference="student")
    order = pipeline.plan(run, epath.Path(tmp_path), Splits(run.data))
    compared = [task.name for task in order if task.reference is not None]
    assert compared == ["other", "file"]
    with pytest.raises(
        BadInput, match=r"config.data.test_split: 40 of the 40 .* teacher is measured"
    ):
        _finish(_run(labelled=False, reference="student"), epath.Path(tmp_path))


@pytest.mark.parametrize(
    ("reference", "line"),
    [
        ("teachr", "^config.reference: there is no stage 'teachr'; did you mean teacher"),
        ("cache", "^config.reference: cache does not leave one whole model"),
    ],
)
def test_a_reference_that_is_none(tmp_path, reference, line):
    run = _run(labelled=True, reference=reference)
    with pytest.raises(BadInput, match=line):
        pipeline.plan(run, epath.Path(tmp_path), Splits(run.data))


def test_a_limit_on_the_accuracy_needs_labels(tmp_path):
    run = _run(labelled=False)
    file = {"kind": "export", "model": "student", "formats": ["stablehlo"], "accuracy_drop": 0.1}
    made = parse.parse(config.Export, file)
    run.stages["file"] = made  # pyright: ignore[reportIndexIssue]
    with pytest.raises(BadInput, match=r"^config.stages.file.accuracy_drop: not all examples of"):
        _finish(run, epath.Path(tmp_path))
