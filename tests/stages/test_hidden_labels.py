"""Labels that may not be used: every stage kind leaves the same bytes whatever they are."""

import json
import typing

import numpy as np
import pytest
import tensorflow_datasets as tfds
from etils import epath

from kdjax import config, parse, pipeline
from kdjax.artifacts import Artifact
from kdjax.choice import choices
from kdjax.contexts import Splits
from kdjax.export import load_stablehlo
from tests.prepared_sets import encoded, write

pytestmark = pytest.mark.slow

CLASSES, PER_CLASS, TRAIN, TEST, SEED = 3, 3, 144, 12, 1
_TRAINING = {
    "steps": 2,
    "batch": 8,
    "log_every_steps": 1,
    "optimizer": {"name": "sgd", "learning_rate": 0.05},
}
_CNN = {"name": "cnn", "widths": [4]}
_VIEWS = {"recipe": "crop_flip", "shift": 1, "flip": 0.0}
_LOOKED_AT = {"kind": "sensitivity", "model": "student", "examples": 16, "sparsities": [0.5]}
STAGES = {
    "pretrain": {
        "kind": "pretrain",
        "encoder": _CNN,
        "projector": [4],
        "views": _VIEWS,
        "probe": True,
        **_TRAINING,
    },
    "judged": {
        "kind": "evaluate",
        "model": "pretrain",
        "knn": {"k": 2},
        "linear": {"strengths": [0.1]},
        "pairs": {"views": _VIEWS, "examples": 8},
        "labels_share": 0.25,
    },
    "teacher": {"kind": "finetune", "start_from": "pretrain", "views": _VIEWS, **_TRAINING},
    "cache": {"kind": "cache", "teacher": "teacher", "recipe": _VIEWS, "views": 2},
    "student": {
        "kind": "distill",
        "cache": "cache",
        "encoder": _CNN,
        "ce_weight": 1.0,
        **_TRAINING,
    },
    "embedded": {
        "kind": "cache",
        "teacher": "pretrain",
        "recipe": _VIEWS,
        "views": 1,
        "signal": {"name": "embedding"},
    },
    "label_free": {"kind": "distill_encoder", "cache": "embedded", "encoder": _CNN, **_TRAINING},
    "by_labels": {**_LOOKED_AT, "against": "labels"},
    "by_predictions": {**_LOOKED_AT, "against": "predictions", "numbers": [{}]},
    "by_teacher": {**_LOOKED_AT, "against": "teacher", "cache": "cache"},
    "small": {
        "kind": "shrink",
        "model": "student",
        "sparsity": 0.25,
        "examples": 16,
        "sensitivity": "by_labels",
    },
    "int8": {
        "kind": "quantize",
        "model": "student",
        "calibration_examples": 16,
        "agreement": 0.0,
        "float_edges": False,
    },
    "rounded": {
        "kind": "own",
        "function": "tests.own_stages:rounded",
        "reads": ["student"],
        "leaves": "student",
        "step": 0.1,
    },
    "files": {"kind": "export", "model": "student", "formats": ["stablehlo"]},
}


def _scores(ids):
    """Which labels may be used is drawn by seed and id: those with the lowest words of a class."""
    return np.array([np.random.Philox(key=[SEED, int(id)]).random_raw() for id in ids], np.uint64)


def _chosen(labels, count):
    scores = _scores(np.arange(TRAIN))
    each = [np.flatnonzero(labels == c) for c in range(CLASSES)]
    return np.sort(np.concatenate([rows[np.argsort(scores[rows])][:count] for rows in each]))


def _two_labellings():
    """Labels, and others that agree where they may be used, and nearly nowhere else."""
    labels = np.arange(TRAIN) % CLASSES
    scores, shown = _scores(np.arange(TRAIN)), _chosen(labels, 12)  # a quarter of 48: the most
    free = np.flatnonzero(scores > scores[shown].max())
    other = labels.copy()
    other[free] = (labels[free] + 1) % CLASSES
    assert len(free) > TRAIN / 4
    # The number of each class stays, which a share of them is of.
    spare = np.bincount(other, minlength=CLASSES) - TRAIN // CLASSES
    for c in np.flatnonzero(spare > 0):
        for to in np.flatnonzero(spare < 0):
            count = min(spare[c], -spare[to])
            moved = free[other[free] == c][:count]
            other[moved] = to
            spare[c] -= len(moved)
            spare[to] += len(moved)
    assert np.bincount(other).tolist() == np.bincount(labels).tolist()
    assert (labels != other).sum() > TRAIN / 5
    for count in (PER_CLASS, 12):
        np.testing.assert_array_equal(_chosen(labels, count), _chosen(other, count))
    return labels, other


def _left(workdir, labels, environment):
    """Runs everything on these labels; the files that it leaves, by name, as bytes or plain data."""
    images = np.random.default_rng(0).integers(256, size=(TRAIN + TEST, 8, 8, 1), dtype=np.uint8)
    features = {
        "image": tfds.features.Image(shape=(8, 8, 1)),
        "label": tfds.features.ClassLabel(num_classes=CLASSES),
        "id": tfds.features.Scalar(np.int64),
    }

    def examples(rows, labels):
        return [
            {"image": encoded(images[row, ..., 0]), "label": label, "id": row}
            for row, label in zip(rows, labels, strict=True)
        ]

    test = range(TRAIN, TRAIN + TEST)
    splits = {
        "train": [examples(range(TRAIN), labels)],
        "test": [examples(test, np.arange(TEST) % CLASSES)],
    }
    write(workdir / "data" / "tiny" / "1.0.0", features, splits)
    values = {
        "name": "hidden",
        "seeds": [SEED],
        "parallel": "single",
        "latency_bulk_batch": 1,
        "data": {
            "name": "tiny",
            "labels_per_class": PER_CLASS,
        },
        "stages": STAGES,
    }
    environment.setenv("KDJAX_DATA_DIR", str(workdir / "data"))
    run = parse.parse(config.Run, values)
    data = Splits(run.data)
    assert (data.train.labels == -1).all()
    tasks = pipeline.plan(run, epath.Path(workdir / "run"), data)
    pipeline.execute(run, tasks, data)
    found = {}
    for path in sorted((workdir / "run").rglob("*")):
        name = str(path.relative_to(workdir / "run"))
        # Orbax names its files by chance and TensorBoard's hold the time: what was trained is in the
        # manifest, by its hash, and what was logged in metrics.jsonl.
        if path.is_dir() or "tfevents" in name or {"checkpoints", "variables"} & set(path.parts):
            continue
        found[name] = _plain(path)
    manifests = [Artifact.open(task.folder, task.stage).manifest for task in tasks]
    return found, manifests


# Orbax's files hold the time and StableHLO's the line that called: their sizes are not always the same.
_TIMES = (
    "wall",
    "time",
    "second",
    "latency_ms",
    "_per_s",
    "bulk_ms",
    "memory",
    "created",
    "bytes_on_disk",
    "gzip_bytes",
)


def _plain(path):
    """A file as it is; numbers that measure time left out of those of text."""

    def timeless(value):
        if isinstance(value, dict):
            kept = {k: v for k, v in value.items() if not any(t in k for t in _TIMES)}
            return {k: timeless(v) for k, v in kept.items()}
        return [timeless(v) for v in value] if isinstance(value, list) else value

    if path.suffix == ".json":
        content = timeless(json.loads(path.read_text()))
        # A manifest's list of hashes has those of Orbax's files, and so has its own.
        return {k: v for k, v in content.items() if k not in ("files", "sha256")}
    if path.suffix == ".jsonl":
        return [timeless(json.loads(line)) for line in path.read_text().splitlines()]
    if (
        path.suffix == ".stablehlo"
    ):  # the file names the lines that called: what it says is compared
        images = np.random.default_rng(1).integers(256, size=(2, 8, 8, 1), dtype=np.uint8)
        return np.asarray(load_stablehlo(path)(images)).tobytes()
    return path.read_bytes()


def test_hidden_labels_change_no_byte_of_what_any_stage_leaves(tmp_path, monkeypatch):
    (labels, other), kinds = _two_labellings(), {stage["kind"] for stage in STAGES.values()}
    every = {typing.get_type_hints(kind)["kind"] for kind in choices(config.Stage)}
    # What is published is looked at with no training example, and what is trimmed is a model of texts.
    assert {typing.get_args(kind)[0] for kind in every} == kinds | {"pretrained", "trim"}
    against = {stage.get("against") for stage in STAGES.values()} - {None}
    assert against == set(typing.get_args(typing.get_type_hints(config.Sensitivity)["against"]))

    left, manifests = _left(tmp_path / "one", labels, monkeypatch)
    again, _ = _left(tmp_path / "two", other, monkeypatch)
    assert left.keys() == again.keys()  # the folders' names have the fingerprint of the data
    assert not [name for name in left if left[name] != again[name]]
    assert len(left) > len(STAGES)
    trained = [said for said in manifests if "model" in said or "encoder_model" in said]
    assert len(trained) == 7
    assert all("variables" in said for said in trained)
    (curve,) = [said for said in manifests if said["stage"] == "by_labels"]
    assert curve["sensitivity"]["examples"] == CLASSES * PER_CLASS
