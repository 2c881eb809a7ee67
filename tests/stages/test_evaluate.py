"""A frozen encoder's features through the stage: the figures by hand, what is kept, what is refused."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import linear_model

from kdjax import config, evaluate, keys, views
from kdjax.artifacts import Artifact
from kdjax.artifacts.model import encoder_of
from kdjax.data import digits, labelled_rows
from kdjax.types import BadInput

PROBE = {
    "kind": "evaluate",
    "model": "pretrain",
    "knn": {"k": 20},
    "linear": {"strengths": [0.001, 0.1]},
    "pairs": {"views": {"recipe": "crop_flip", "shift": 1, "flip": 0.0}, "examples": 50},
    "labels_share": 0.5,
}


def _manifest(task):
    return Artifact.open(task.folder, task.stage).manifest


@pytest.fixture(scope="module")
def probed(line):
    return line.run(only=["probe"], stages__probe=PROBE)


@pytest.fixture(scope="module")
def encode(probed):
    """Features of preprocessed images by hand, all at once."""
    task = probed["pretrain"]
    spec, read = encoder_of(Artifact.open(task.folder, task.stage), field="here")
    module = dataclasses.replace(spec, projector=()).module()
    variables = {name: {"encoder": part} for name, part in read().items()}
    return jax.jit(lambda images: module.apply(variables, images, train=False)["features"])


@pytest.fixture(scope="module")
def splits(line):
    return line.plan()[2]


def test_the_rows_are_the_figures_of_the_features(probed, encode, splits):
    train, test = (
        np.asarray(encode(jnp.asarray(split.inputs()["image"] / np.float32(255))))
        for split in (splits.train, splits.test)
    )
    whole = digits("train[:20%]")
    shown = labelled_rows(whole, share=0.5, seed=0)
    train, label = train[shown], whole.labels[shown]
    for name, expected in (("train", train), ("test", test)):
        found = np.load(probed["probe"].folder / f"features_{name}.npy", allow_pickle=False)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    shares = evaluate.knn(train, label, test, classes=10, k=20)
    probe = evaluate.linear_probe(train, label, classes=10, seed=0, strengths=[0.001, 0.1])
    manifest = _manifest(probed["probe"])
    rows = {row["stage"]: row for row in manifest["rows"]}
    assert list(rows) == ["probe/knn", "probe/linear"]
    for name, scores in (("probe/knn", shares), ("probe/linear", probe.logits(test))):
        right = (scores.argmax(-1) == splits.test.labels).mean()
        assert rows[name]["scores"]["accuracy"]["value"] == pytest.approx(
            right, abs=0.5 / len(test)
        )
        assert rows[name]["model"] == "cnn-8-16"
        assert rows[name]["flops"] > 0
        assert rows[name]["latency_ms_p50"] is None
        assert rows[name]["bytes_on_disk"] is None
    assert manifest["labels"] == len(shown)
    assert manifest["linear"]["strength"] == probe.strength
    assert manifest["linear"]["validation_accuracy"] == list(probe.validation_accuracy)


def test_pairs_are_two_views_of_test_examples(probed, encode, splits):
    random = np.random.Philox(key=[0, 1]).random_raw(len(splits.test))
    drawn = np.argsort(random, kind="stable")[:50]
    stream = keys.stream(jax.random.key(0), "probe")
    ids, raw = splits.test.ids[drawn], splits.test.read(drawn)

    def view(number):
        def one(id, image):
            key = keys.example(stream, number, id)
            return views.crop_flip(key, image, size=8, shift=1, flip=0.0, mean=(0.0,), std=(1.0,))

        return encode(jax.vmap(one)(ids, raw["image"]))

    za, zb = view(0), view(1)
    said = _manifest(probed["probe"])["pairs"]
    assert said["examples"] == 50
    assert said["alignment"] == pytest.approx(float(evaluate.alignment(za, zb)), rel=1e-4)
    assert said["uniformity"] == pytest.approx(float(evaluate.uniformity(za)), rel=1e-4)


def test_what_was_kept_before_a_kill_is_not_made_again(line, probed, capsys):
    task = probed["probe"]
    before = _manifest(task)
    train, test = (task.folder / f"features_{name}.npy" for name in ("train", "test"))
    whole, written = test.read_bytes(), train.stat().mtime
    (task.folder / "manifest.json").unlink()
    test.write_bytes(whole[: len(whole) // 2])
    (task.folder / "features_test.npy.tmp").write_bytes(b"half")
    line.run(only=["probe"], stages__probe=PROBE)
    after = _manifest(task)
    assert (after["rows"], after["linear"], after["pairs"]) == (
        before["rows"],
        before["linear"],
        before["pairs"],
    )
    assert test.read_bytes() == whole
    assert train.stat().mtime == written
    capsys.readouterr()
    line.run(only=["probe"], stages__probe=PROBE)
    assert "probe (seed 0): done before, skipped" in capsys.readouterr().err


def test_eight_devices_say_what_one_says(line, probed):
    eight = line.copy("probe_pmap", without="probe")
    odd = {**PROBE, "batch": 50}  # which they cannot share evenly
    task = eight.run(only=["probe"], stages__probe=odd, parallel="pmap")["probe"]
    for name in ("features_train.npy", "features_test.npy"):
        found, expected = (np.load(t.folder / name) for t in (task, probed["probe"]))
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    found, expected = _manifest(task), _manifest(probed["probe"])
    assert [row["scores"]["accuracy"]["value"] for row in found["rows"]] == pytest.approx(
        [row["scores"]["accuracy"]["value"] for row in expected["rows"]], abs=1.5 / 72
    )
    assert found["pairs"] == pytest.approx(expected["pairs"], rel=1e-4)


def test_the_encoder_of_a_classifier_and_one_label_a_class(line):
    few = {
        "kind": "evaluate",
        "model": "teacher",
        "knn": None,
        "linear": {"strengths": [0.1]},
        "labels_per_class": 1,
    }
    said = _manifest(line.run(only=["few"], stages__few=few)["few"])
    assert [row["stage"] for row in said["rows"]] == ["few/linear"]
    assert (said["labels"], said["linear"]["validation_accuracy"]) == (10, [])


def test_the_pixels_themselves(line, splits):
    """What everything else has to beat: logistic regression on the normalised images as they are."""
    plain = {"kind": "evaluate", "knn": {"k": 1}, "linear": {"strengths": [0.01]}}
    task = line.run(only=["pixels"], stages__pixels=plain)["pixels"]
    rows = {row["stage"]: row for row in _manifest(task)["rows"]}
    whole = digits("train[:20%]")
    shown = np.flatnonzero(splits.partly_labelled(0).labels >= 0)
    x, test = (
        split.inputs()["image"].reshape(len(split), -1) / np.float32(255)
        for split in (whole, splits.test)
    )
    regression = linear_model.LogisticRegression(C=1 / (0.01 * len(shown)), max_iter=1000)
    mean, std = x[shown].mean(0), x[shown].std(0)
    std[std == 0] = 1
    fitted = regression.fit((x[shown] - mean) / std, whole.labels[shown])
    expected = fitted.score((test - mean) / std, splits.test.labels)
    assert rows["pixels/linear"]["scores"]["accuracy"]["value"] == pytest.approx(
        expected, abs=1.5 / len(test)
    )
    lengths = np.linalg.norm(test, axis=1)[:, None] * np.linalg.norm(x[shown], axis=1)[None]
    nearest = (test @ x[shown].T / lengths).argmax(1)
    right = (whole.labels[shown][nearest] == splits.test.labels).mean()
    assert rows["pixels/knn"]["scores"]["accuracy"]["value"] == pytest.approx(
        right, abs=1.5 / len(test)
    )
    assert (rows["pixels/knn"]["model"], rows["pixels/knn"]["params"]) == ("pixels", 0)


def test_labels_are_the_stages_own(line, splits):
    def ids(**own):
        return set(splits.labelled(0, config.Labels(**own)).ids.tolist())

    assert len(ids()) == 30  # those of `data`
    assert ids(labels_share=0.01) < ids() < ids(labels_share=0.3) < ids(labels_share=1.0)
    assert len(ids(labels_share=0.01)) == 10
    assert len(ids(labels_share=1.0)) == len(splits.train)

    def marks(**changes):
        return {task.name: task.fingerprint for task in line.plan(**changes)[1]}

    plain, own = marks(), marks(stages__teacher__labels_share=0.5)
    assert own["pretrain"] == plain["pretrain"]
    assert own["teacher"] != plain["teacher"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"knn": {"k": 200}}, r"probe.knn.k: 200 of 140 labelled examples .* give 1 to 140"),
        ({"knn": {"temperature": 0.0, "k": 1}}, "probe.knn.temperature: 0.0 is not in"),
        ({"linear": {"strengths": []}}, "probe.linear.strengths: none given"),
        ({"linear": {"validation": 1.0}}, r"probe.linear.validation: 1.0 is not in \(0, 1\)"),
        (
            {"labels_share": None, "labels_per_class": 1, "knn": None},
            "probe.linear.strengths: class 0 has one labelled example",
        ),
        ({"pairs": {**PROBE["pairs"], "examples": 73}}, "examples: 73 is not between 2 and the 72"),
        (
            {"knn": None, "linear": None, "pairs": None},
            "config.stages.probe: there is nothing to",
        ),
        ({"batch": 0, "knn": {"k": 5}}, "probe.batch: 0 is not in"),
        ({"labels_per_class": 3}, "probe.labels_share: labels_per_class is given, too"),
        ({"labels_share": 1.5}, r"probe.labels_share: 1.5 is not in \(0, 1\]"),
    ],
)
def test_bad_evaluations(line, changes, message):
    with pytest.raises(BadInput, match=message):
        line.run(only=["probe"], stages__probe={**PROBE, **changes})


def test_both_ways_of_naming_labels(line):
    with pytest.raises(
        BadInput, match=r"^config.data.labels_share: labels_per_class is given, too"
    ):
        line.plan(data__labels_share=0.1)
