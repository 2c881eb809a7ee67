"""Sources in a config: each kind from files that a user has, and runs with few labels or none."""

import json

import numpy as np
import onnx
import pytest
from etils import epath

from kdjax import config, data, main, parse, pipeline
from kdjax.checks.effect import check_effect
from kdjax.checks.expected import check_labels
from kdjax.commands.reexport import reexport
from kdjax.contexts import Context, Splits
from kdjax.measuring import measure
from kdjax.measuring.parity import compare
from kdjax.tasks import Classification
from kdjax.train import choose
from kdjax.types import BadInput
from tests.data.sources.test_tar import pack, samples
from tests.picture_files import classes, encoded, pixels, write

CNN = {"name": "cnn", "widths": [4]}
VIEWS = {"recipe": "crop_flip", "shift": 1}
TRAINING = {
    "steps": 2,
    "batch": 8,
    "log_every_steps": 1,
    "optimizer": {"name": "sgd", "learning_rate": 0.05},
}
FOLDER = {"kind": "folder", "size": 8, "test_share": 0.25}


def run_of(source, **stages):
    return {"name": "own", "data": {"name": "mine", "source": source}, "stages": stages}


def splits_of(source, kept=None, **more):
    plain = {"name": "mine", "source": source, **more}
    return Splits(parse.parse(config.Data, plain, "config.data"), kept)


def _arrow(root):
    pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    pq = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    columns = {
        "image": [encoded(pixels(i)) for i in range(24)],
        "label": [i % 2 for i in range(24)],
    }
    pq.write_table(pa.table(columns), root / "all.parquet")
    return {}


def _csv(root):
    write(root, {f"{i}.png": i for i in range(24)})
    lines = [f"{i}.png;{'ab'[i % 2]}" for i in range(24)]
    (root / "all.csv").write_text("\n".join(["file;kind", *lines]))
    return {"image": "file", "label": "kind"}


def _folder(root):
    classes(root, each=12)
    return {}


def _npz(root):
    images = np.stack([pixels(i) for i in range(24)])
    np.savez(root / "all.npz", images=images, labels=np.arange(24) % 2)
    return {}


def _tar(root):
    pack(root / "all.tar", samples(range(24), lambda i: {"cls": str(i % 2).encode()}))
    return {}


@pytest.mark.parametrize(
    ("kind", "make"),
    {"arrow": _arrow, "csv": _csv, "folder": _folder, "npz": _npz, "tar": _tar}.items(),
)
def test_each_kind_gives_both_splits_of_a_run(tmp_path, kind, make):
    root = tmp_path / "files"
    root.mkdir()
    fields = make(root)
    if kind != "npz":
        fields["size"] = (9, 12)
    source = {"kind": kind, "root": str(root), "test_share": 0.25, **fields}
    splits = splits_of(source, data.Kept(tmp_path / "kept"))
    assert len(splits.train) + len(splits.test) == 24
    assert {*splits.shown(0).tolist()} == {*range(len(splits.train))}
    assert splits.test.target.classes == 2
    assert splits.inputs.images[0].shape == (9, 12, 3)
    assert len(splits.labelled(0, config.Labels(labels_per_class=2))) == 4
    streamed = splits_of(source, mode="stream").train
    rows = np.arange(len(streamed))[::3]
    np.testing.assert_array_equal(
        streamed.read(rows)["image"], splits.train.inputs()["image"][rows]
    )


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ({"kind": "foldr", "root": "x"}, r"^config.data.source.kind: .*did you mean folder"),
        ({"kind": "folder", "size": 8}, r"^config.data.source.root: missing"),
        ({"kind": "npz", "root": "x", "size": 8}, r"^config.data.source.size: unknown field"),
        ({**FOLDER, "root": "x", "crop": 1.5}, r"^config.data.source.crop: 1.5 is not in"),
        (
            {**FOLDER, "root": "x", "labels": "all"},
            r"^config.data.source.labels: .all. is not one of",
        ),
        (
            {"kind": "csv", "root": "x", "size": 8, "target": "values", "classes": 3},
            r"^config.data.source.classes: values have no classes",
        ),
        ({**FOLDER, "root": "nowhere at all"}, r"^config.data.source.root: .* is not there"),
        ({"kind": "folder", "root": "ROOT", "size": 8}, r"^config.data.test_split: split 'test'"),
        ({**FOLDER, "root": "ROOT", "classes": 1}, r"^config.data.source.classes: 1, and .* has 2"),
    ],
)
def test_what_is_wrong_is_one_line_with_the_field(tmp_path, source, line):
    root = classes(tmp_path)
    if source.get("root") == "ROOT":
        source = {**source, "root": str(root)}
    with pytest.raises(BadInput, match=line) as caught:
        _ = splits_of(source).test
    assert "\n" not in str(caught.value)


def test_keys_of_prepared_sets_have_no_effect_beside_a_source(tmp_path):
    run = run_of({**FOLDER, "root": str(tmp_path)}, one={"kind": "evaluate"})
    run["data"]["label_key"] = "fine_label"
    with pytest.raises(BadInput, match=r"^config.data.label_key: .* as the data come from source"):
        check_effect(parse.parse(config.Run, run))


def test_the_place_of_the_files_is_no_part_of_a_fingerprint(tmp_path):
    marks = set()
    for name in ("a", "b"):
        source = {**FOLDER, "root": str(classes(tmp_path / name))}
        run = parse.parse(config.Run, run_of(source, one={"kind": "evaluate", "knn": {"k": 2}}))
        tasks = pipeline.plan(run, epath.Path(tmp_path), Splits(run.data))
        marks |= {task.fingerprint for task in tasks}
    assert len(marks) == 1


def _context(splits, stage):
    plain = run_of({**FOLDER, "root": "x"}, one=stage)
    run = parse.parse(config.Run, plain)
    return Context(run, "one", 0, epath.Path("x"), {}, splits, choose("single")), run.stages["one"]


def test_without_any_label_there_are_no_scores(tmp_path):
    write(tmp_path, {f"{i}.png": i for i in range(20)})
    splits = splits_of({**FOLDER, "root": str(tmp_path), "classes": 3})
    assert splits.is_unlabelled
    student = {"kind": "distill", "cache": "c", "encoder": CNN, "ce_weight": 0.0, **TRAINING}
    context, stage = _context(splits, student)
    check_labels(context, stage)
    answers = np.random.default_rng(0).normal(size=(len(splits.test), 3)).astype(np.float32)
    assert measure.scored(context, Classification(classes=3), answers) == {
        "scores": {},
        "primary": None,
    }
    parity = compare(
        epath.Path("file"),
        answers,
        answers,
        splits.test_labels,
        task=Classification(classes=3),
        runtime="none",
        agreement=1.0,
    )
    assert (parity.agreement, parity.accuracy_drop) == (1.0, None)
    judged = {"kind": "evaluate", "model": "one", "knn": {"k": 2}}
    with pytest.raises(BadInput, match=r"^knn: .* has no labels"):
        check_labels(*_context(splits, judged))


def test_unlabelled_pictures_have_no_task(tmp_path):
    from kdjax import tasks

    write(tmp_path, {f"{i}.png": i for i in range(20)})
    train = splits_of({**FOLDER, "root": str(tmp_path)}).train
    with pytest.raises(
        BadInput, match=r"^config.data: .* has no labels, .* how many classes there are"
    ):
        tasks.of(train)


def _main(tmp_path, run):
    """A whole run; its report."""
    path = tmp_path / "config.py"
    path.write_text(f"def get_config(arg=None):\n    return {run!r}\n")
    main.main(["kdjax", f"--config={path}", f"--workdir={tmp_path / 'run'}"])
    return json.loads((tmp_path / "run" / "report.json").read_text())


PRETRAIN = {"kind": "pretrain", "encoder": CNN, "projector": [4], "views": VIEWS, **TRAINING}
"""What learns from pictures alone, and is taught by what was."""
LABEL_FREE = {
    "pretrain": PRETRAIN,
    "cache": {
        "kind": "cache",
        "teacher": "pretrain",
        "recipe": VIEWS,
        "views": 2,
        "signal": {"name": "embedding"},
    },
    "student": {"kind": "distill_encoder", "cache": "cache", "encoder": CNN, **TRAINING},
    "pairs": {
        "kind": "evaluate",
        "model": "student",
        "knn": None,
        "linear": None,
        "pairs": {"views": VIEWS, "examples": 4},
    },
}


@pytest.mark.slow
@pytest.mark.thorough
@pytest.mark.parametrize("half", [False, True])
def test_pictures_without_labels_train_and_teach(tmp_path, half):
    """Nowhere a label; or in the test alone, by which the student is judged."""
    root = tmp_path / "files"
    prefix = "train/" if half else ""
    write(root, {f"{prefix}{i}.png": i for i in range(40)})
    stages, source = dict(LABEL_FREE), {**FOLDER, "root": str(root)}
    if half:
        classes(root / "test", begin=500)
        source["test_share"] = 0.0
    report = _main(tmp_path, run_of(source, **stages))
    assert report["run"]["not_done"] == []
    assert report["run"]["dataset"].get("classes") == (2 if half else None)


@pytest.mark.slow
@pytest.mark.thorough
def test_a_folder_goes_the_whole_way_into_a_file_with_the_names_of_its_classes(tmp_path, capsys):
    root = classes(tmp_path / "files", each=30, names=("cat", "dög"))
    write(root, {"cat/broken.jpg": b"", "dög/copy.png": 100})
    stages = {
        "student": {"kind": "finetune", "encoder": CNN, "views": VIEWS, **TRAINING},
        "files": {"kind": "export", "model": "student", "formats": ["onnx", "stablehlo"]},
    }
    source = {**FOLDER, "root": str(root), "skip_broken": True}
    report = _main(tmp_path, run_of(source, **stages))
    said = capsys.readouterr().err
    assert "data: skipped, 1 picture of" in said
    assert "broken.jpg (it is empty)" in said
    dataset = report["run"]["dataset"]
    assert dataset["class names"] == ["cat", "dög"]
    assert any("skipped" in note for note in dataset["notes"])
    (path,) = (tmp_path / "run" / "stages").glob("files-*/student.onnx")

    def names():
        found = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
        return json.loads(found["kdjax.class_names"])

    assert names() == ["cat", "dög"]
    assert json.loads((path.parent / "manifest.json").read_text())["class_names"] == ["cat", "dög"]
    assert reexport(tmp_path / "run") == 0
    assert names() == ["cat", "dög"]
