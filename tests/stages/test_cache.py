"""Every signal and every kind of view: what a student reads is what its teachers would say."""

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest

from kdjax import teacher
from kdjax.artifacts import Artifact, finish
from kdjax.commands import verify
from kdjax.teacher_targets.audit import audit
from kdjax.teacher_targets.source import Source
from kdjax.train import recorder
from kdjax.types import BadInput
from tests.some import some

SECOND = {
    "kind": "finetune",
    "encoder": {"name": "cnn", "widths": [4, 8]},
    "views": {"recipe": "crop_flip", "shift": 1, "flip": 0.0},
    "steps": 4,
    "batch": 32,
    "log_every_steps": 1,
    "optimizer": {"name": "sgd", "learning_rate": 0.05},
}
TOP_K = {"name": "top_k", "k": 3, "temperatures": [2.0, 4.0]}

SIGNALS = {
    "top_k": {"stages__cache__signal": TOP_K},
    "mean": {
        "stages__second": SECOND,
        "stages__cache__teacher": ["teacher", "second"],
        "stages__cache__weights": [3.0, 1.0],
    },
    "apart": {
        "stages__second": SECOND,
        "stages__cache__teacher": ["teacher", "second"],
        "stages__cache__together": "apart",
        "stages__student__teacher_weights": [3.0, 1.0],
    },
    "apart_top_k": {
        "stages__second": SECOND,
        "stages__cache__teacher": ["teacher", "second"],
        "stages__cache__together": "apart",
        "stages__cache__signal": TOP_K,
    },
    "mixup": {"stages__cache__mix": {"name": "mixup", "alpha": 1.0}},
    "cutmix": {"stages__cache__mix": {"name": "cutmix"}},
    "smaller_student": {"stages__cache__recipe__size": 12, "stages__student__size": 8},
}


def losses(task, names=("loss", "loss/kd", "loss/ce")):
    lines = recorder.read(task.folder / "metrics.jsonl")
    return {name: np.array([line[name] for line in lines]) for name in names}


@pytest.mark.parametrize("name", some(SIGNALS, "mean", "apart", "cutmix"))
def test_cached_is_live(line, name):
    changes = {**SIGNALS[name], "stages__student__steps": 22}  # over two epochs of 287 images
    cached = losses(line.run(only=["student"], **changes)["student"])
    live = line.run(only=["student"], stages__student__live=True, **changes)["student"]
    for term, wanted in losses(live).items():
        np.testing.assert_allclose(cached[term], wanted, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize(
    "name", ["top_k", "mixup", pytest.param("apart", marks=pytest.mark.thorough)]
)
def test_a_streamed_cache_is_the_resident_one(line, name):
    changes = {**SIGNALS[name], "stages__student__steps": 22}
    wanted = losses(line.run(only=["student"], **changes)["student"])
    other = line.copy(f"{name}_streamed")
    streamed = other.run(only=["student"], data__mode="stream", **changes)["student"]
    # Too large for the device, though the images are not: what it says comes with each batch.
    changes |= {"data__mode": "resident", "data__resident_bytes": 1}
    joined = line.copy(f"{name}_joined").run(only=["student"], **changes)["student"]
    for term, values in wanted.items():
        np.testing.assert_allclose(losses(streamed)[term], values, atol=2e-5, rtol=2e-5)
        np.testing.assert_allclose(losses(joined)[term], values, atol=2e-5, rtol=2e-5)


def test_each_signal_is_another_loss(line):
    """The comparisons above would notice a signal that is not looked at."""
    seen = {"full": losses(line.run()["student"], ["loss/kd"])["loss/kd"][:10]}
    for name, changes in SIGNALS.items():
        changes = {**changes, "stages__student__steps": 22}
        found = losses(line.run(only=["student"], **changes)["student"], ["loss/kd"])
        seen[name] = found["loss/kd"][:10]
    names = list(seen)
    for i, a in enumerate(names):
        for b in names[:i]:
            assert np.abs(seen[a] - seen[b]).max() > 1e-4, (a, b)


def test_a_top_k_of_all_classes_is_all_logits(line):
    signal = {"name": "top_k", "k": 10, "temperatures": [4.0]}
    found = losses(line.run(stages__cache__signal=signal)["student"])
    for name, wanted in losses(line.run()["student"]).items():
        np.testing.assert_allclose(found[name], wanted, atol=1e-4, rtol=1e-4)


def test_the_embedding_of_an_encoder_is_learnt_without_labels(line):
    changes = {
        "stages__cache": {
            "kind": "cache",
            "teacher": "pretrain",
            "recipe": {"recipe": "crop_flip", "shift": 1, "flip": 0.0},
            "views": 2,
            "signal": {"name": "embedding"},
        },
        "stages__student": {
            **{k: v for k, v in SECOND.items() if k != "views"},
            "kind": "distill_encoder",
            "cache": "cache",
            "steps": 30,
        },
        "stages__tuned": {**SECOND, "encoder": None, "start_from": "student"},
    }
    tasks = line.run(only=["tuned"], **changes)
    found = losses(tasks["student"], ["loss", "loss/cosine"])
    assert found["loss/cosine"][-5:].mean() < 0.5 * found["loss/cosine"][0]
    live = dict(changes["stages__student"], live=True)
    again = line.run(only=["student"], **{**changes, "stages__student": live})["student"]
    # Features kept in float16.
    np.testing.assert_allclose(losses(again, ["loss"])["loss"], found["loss"], atol=2e-3)
    tuned = Artifact.open(tasks["tuned"].folder, tasks["tuned"].stage)
    assert tuned.manifest["model"]["encoder"] == {"name": "cnn", "widths": [4, 8]}
    assert audit(tasks["cache"].folder, samples=50, seed=0).difference > 0


@pytest.mark.parametrize("by", ["vmap", "unroll"])
def test_a_sweep_is_its_students_one_by_one(line, by):
    knobs = [
        {"temperature": 1.0, "kd_weight": 1.0, "ce_weight": 0.0},
        {"kd_weight": 0.2, "ce_weight": 0.8},
    ]
    steps = {"stages__student__steps": 12}
    line.run(only=["cache"])
    swept = line.copy(f"sweep_{by}")
    task = swept.run(stages__student__sweep=knobs, stages__student__sweep_by=by, **steps)["student"]
    artifact = Artifact.open(task.folder, task.stage)
    assert len(artifact.manifest["rows"]) == 2
    sizes = []
    for i, mine in enumerate(knobs):
        changes = {f"stages__student__{name}": value for name, value in mine.items()}
        one = line.run(**changes, **steps)["student"]
        sizes.append(Artifact.open(one.folder, one.stage).manifest["rows"][0]["bytes_on_disk"])
        alone = losses(one)
        names = [f"{name}[{i}]" for name in alone]
        found = losses(task, names)
        for name, wanted in alone.items():
            np.testing.assert_allclose(found[f"{name}[{i}]"], wanted, atol=2e-4, rtol=2e-4)
    rows = artifact.manifest["rows"]
    assert [row["stage"] for row in rows] == ["student[0]", "student[1]"]
    assert rows[0]["model"] == "cnn-4-8, temperature 1, kd_weight 1, ce_weight 0"
    assert rows[0]["bytes_on_disk"] < 1.5 * sizes[0]  # of one student, not of both
    with pytest.raises(BadInput, match="student is a sweep of several students"):
        swept.run(
            stages__student__sweep=knobs,
            stages__student__sweep_by=by,
            stages__export={"kind": "export", "model": "student"},
            **steps,
        )


@pytest.mark.parametrize("parallel", ["pmap", "mesh"])
def test_eight_devices_ask_what_one_asks(line, parallel):
    one = line.run(only=["cache"])["cache"]
    eight = line.copy(parallel, without="cache").run(only=["cache"], parallel=parallel)["cache"]

    def stored(task):
        folder = teacher.Folder(task.folder / "cache")
        return folder.open("teacher_logits").read().result()

    np.testing.assert_allclose(stored(eight), stored(one), atol=1e-5)


def test_verify(line, capsys):
    task = line.run(only=["cache"])["cache"]
    asked = [str(task.folder), "--teachers"]
    assert verify.main([*asked, "--samples=64"]) == 0
    whole, total, found = capsys.readouterr().out.splitlines()
    assert whole.startswith(f"whole         {task.folder.name}: ")
    assert total.startswith("1 whole, 0 damaged")
    assert found.startswith(f"{task.folder.name}: 64 samples: largest difference")
    assert verify.main([*asked, "--samples=9999"]) == 0
    assert "574 samples" in capsys.readouterr().out  # all there are
    for arguments, said in [
        ([*asked, "--samples=0"], "--samples: 0 is not at least 1"),
        ([*asked, "--seed=-1"], "--seed: -1 is not at least 0"),
        ([*asked, "--tolerance=nan"], "--tolerance: nan is not at least 0"),
        ([*asked, "--sample=2"], "unrecognized arguments: --sample=2; see kdjax verify"),
        ([str(task.folder), "--samples=2"], "--samples goes with --teachers"),
        ([str(task.folder.with_name("cache-seed0-00000000")), "--teachers"], "no such stage"),
        ([str(task.needs[0].folder), "--teachers"], "has no finished teacher cache"),
    ]:
        with pytest.raises(BadInput, match=said):
            verify.main(arguments)
    with pytest.raises(BadInput, match="--samples: 0 is not positive"):
        audit(task.folder, samples=0, seed=0)
    with pytest.raises(BadInput, match="not a finished cache stage"):
        audit(task.folder / "elsewhere", samples=1, seed=0)
    assert audit(task.folder / "cache", samples=3, seed=0).samples == 3


def test_verify_asks_the_teachers_of_every_cache(line, capsys):
    fresh = line.copy("two_caches")
    tasks = fresh.run(only=["cache"])
    more = fresh.run(only=["cache"], stages__cache__views=1)
    assert verify.main([str(fresh.workdir), "--teachers", "--samples=4"]) == 0
    said = capsys.readouterr().out
    for task in (tasks["cache"], more["cache"]):
        assert f"{task.folder.name}: 4 samples: largest difference" in said


def _spelt(manifest):
    """As the writer spells it: otherwise the spelling is refused, before anything that it says."""
    return json.dumps(manifest, indent=1, sort_keys=True).encode()


def _rewrite(files, name, change):
    """Changes an array and puts its new checksums into the manifest: a fault no checksum finds."""
    array = files.open(name)
    values = np.array(array.read().result())
    change(values)
    array.write(values).result()
    manifest = json.loads(files.read("manifest.json"))
    manifest["checksums"] = files.checksums(sorted(manifest["checksums"]))
    files.write("manifest.json", _spelt(manifest))


def test_verify_finds_what_no_checksum_does(line, capsys):
    line.run(only=["cache"])
    task = line.copy("wrong").run(only=["cache"])["cache"]
    files = teacher.Folder(task.folder / "cache")

    def nudge(logits):
        logits[1, 100, 3] += 0.01

    _rewrite(files, "teacher_logits", nudge)
    asked = [str(task.folder), "--teachers", "--samples=9999"]
    assert verify.main(asked) == 1
    assert "damaged" in capsys.readouterr().out  # of a cache that is not whole nothing is asked
    finish(task.folder, Artifact.open(task.folder, task.stage).manifest)
    assert verify.main(asked) == 1
    said = capsys.readouterr().out
    id = files.open("ids").read().result()[100]
    assert "largest difference 0.01" in said
    assert f"(id {id}, view 1), beyond" in said
    assert verify.main([*asked, "--tolerance=0.02"]) == 0

    def spoil(logits):
        logits[0, 5] = np.nan

    _rewrite(files, "teacher_logits", spoil)
    finish(task.folder, Artifact.open(task.folder, task.stage).manifest)
    assert verify.main([*asked, "--tolerance=0.02"]) == 1


# What it says: above. That a word reaches its command: tests/test_main.py.
@pytest.mark.thorough
def test_verify_is_a_command(line):
    task = line.run(only=["cache"])["cache"]
    command = [sys.executable, "-m", "kdjax.main", "verify", str(task.folder)]
    done = subprocess.run(
        [*command, "--teachers", "--samples=8"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert ": 8 samples: largest difference" in done.stdout


@pytest.mark.parametrize(
    ("field", "change", "said"),
    [
        ("teachers", lambda m: m["teachers"][0].update(variables="x"), r"teachers\[0\].variables"),
        ("recipe", lambda m: m["recipe"].update(shift=2), r"recipe.shift is 2, expected 1"),
        ("order", lambda m: m["dataset"].update(ids="x"), r"dataset.ids is 'x', expected"),
        ("images", lambda m: m["dataset"].update(samples="x"), r"dataset.samples is 'x'"),
        ("pixels", lambda m: m.update(pixels="x"), r"pixels is 'x', expected"),
        ("seed", lambda m: m.update(seed=1), r"seed is 1, expected 0"),
        ("jax", lambda m: m.update(jax="0.1"), r"jax is '0.1', expected"),
        ("backend", lambda m: m.update(backend="tpu"), r"backend is 'tpu', expected 'cpu'"),
    ],
)
def test_a_cache_of_something_else_is_refused(line, field, change, said):
    line.run(only=["cache"])
    fresh = line.copy(f"refused_{field}")
    task = fresh.run(only=["cache"])["cache"]
    files = teacher.Folder(task.folder / "cache")
    manifest = json.loads(files.read("manifest.json"))
    change(manifest)
    files.write("manifest.json", _spelt(manifest))
    finish(task.folder, Artifact.open(task.folder, task.stage).manifest)
    with pytest.raises(BadInput, match=said):
        fresh.run()
    if field in ("jax", "backend"):  # the views are the same pixels all the same
        fresh.run(stages__student__accept=[field], stages__student__steps=2)


def test_another_dataset_is_refused(line):
    """Each fault of the data by its own field, through the whole of a source."""
    task = line.run(only=["cache"])["cache"]
    run, tasks, splits = line.plan(only=["cache"])
    inputs = {t.name: Artifact.open(t.folder, t.stage) for t in tasks if t.name != "cache"}
    dataset = splits.train

    def opened(dataset):
        source = Source.of(run, "cache", seed=0, inputs=inputs, dataset=dataset)
        teacher.TeacherCache.open(task.folder / "cache", expected=source.binding())

    opened(dataset)
    rows = np.arange(len(dataset))
    with pytest.raises(BadInput, match=r"dataset\.examples is 287, expected 286"):
        opened(dataset.select(rows[:-1]))
    with pytest.raises(BadInput, match=r"dataset\.ids is "):
        opened(dataset.select(rows[::-1].copy()))  # the order alone

    def darker(chosen):
        return {"image": dataset.read(chosen)["image"] // 2}

    with pytest.raises(BadInput, match=r"dataset\.samples is "):
        opened(dataclasses.replace(dataset, read=darker))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"stages__student__temperature": 3.0, **SIGNALS["top_k"]},
            "temperature 2.0, 4.0, not at 3",
        ),
        ({"stages__cache__signal": {**TOP_K, "k": 11}}, r"cache.signal.k: 11 is not in 1 .. 10"),
        ({"stages__cache__signal": {**TOP_K, "temperatures": []}}, "cache.signal.temperatures"),
        ({"stages__cache__teacher": []}, "cache.teacher: none given"),
        ({"stages__cache__teacher": ["teacher", "teacher"]}, "cache.teacher: teacher stands twice"),
        (
            {"stages__cache__batch": 0, "stages__cache__views": 3},
            r"cache.batch: 0 is not in \[1, ",
        ),
        ({"stages__cache__signal": {"name": "embedding"}}, "keeps an embedding"),
        ({"stages__student__teacher_weights": [1.0]}, "keeps no teachers apart"),
        (
            {**SIGNALS["apart"], "stages__student__teacher_weights": [1.0, 0.0]},
            "teacher_weights: give one positive weight for each of the 2 teachers",
        ),
        (
            {**SIGNALS["apart"], "stages__cache__weights": [1.0, 1.0]},
            "cache.weights: they are of a mean",
        ),
        ({"stages__cache__mix": {"name": "mixup", "alpha": -1.0}}, "cache.mix.alpha: -1.0 is not"),
        ({"stages__student__temperature": 0.0}, "student.temperature: 0.0 is not in"),
    ],
)
def test_bad_signals(line, changes, said):
    with pytest.raises(BadInput, match=said):
        line.run(only=["student"], **changes)
