"""A frozen encoder's features through the stage: the figures by hand, what is kept, what is refused."""

import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import evaluate
from kdjax.data import labelled_rows
from kdjax.stages import Artifact
from kdjax.stages.model import encoder_of

_VIEWS = {"recipe": "crop_flip", "shift": 1, "flip": 0.0}
PROBE = {
    "kind": "evaluate",
    "model": "pretrain",
    "knn": {"k": 20},
    "linear": {"strengths": [0.001, 0.1]},
    "pairs": {"views": _VIEWS, "examples": 50},
    "labels_share": 0.5,
}


def _manifest(task):
    return Artifact.open(task.folder, task.stage).manifest


def _features(task, images):
    """By hand: images as they are, through the module, one batch."""
    spec, read = encoder_of(Artifact.open(task.folder, task.stage), field="here")
    variables = {name: {"encoder": part} for name, part in read().items()}
    module = spec.__class__(
        encoder=spec.encoder, projector=(), image_shape=(8, 8, 1), size=8
    ).module()
    found = module.apply(variables, images, train=False)
    return np.asarray(found["features"])


@pytest.fixture(scope="module")
def probed(line):
    return line.run(only=["probe"], stages__probe=PROBE)


@pytest.fixture(scope="module")
def by_hand(line, probed):
    """Features of training and test images, and the rows with a label."""
    _, _, splits = line.plan()
    raw = (splits.train.images() / np.float32(255), splits.test.images() / np.float32(255))
    train, test = (_features(probed["pretrain"], jnp.asarray(images)) for images in raw)
    return train, test, labelled_rows(splits.train, share=0.5, seed=0), splits


def test_the_rows_are_the_figures_of_the_features(probed, by_hand):
    train, test, shown, splits = by_hand
    label = splits.train.labels[shown]
    shares = evaluate.knn(train[shown], label, test, classes=10, k=20)
    probe = evaluate.linear_probe(train[shown], label, classes=10, seed=0, strengths=[0.001, 0.1])
    manifest = _manifest(probed["probe"])
    rows = {row["stage"]: row for row in manifest["rows"]}
    assert list(rows) == ["probe/knn", "probe/linear"]
    for name, scores in (("probe/knn", shares), ("probe/linear", probe.logits(test))):
        right = (scores.argmax(-1) == splits.test.labels).mean()
        assert rows[name]["accuracy"] == pytest.approx(right, abs=0.5 / len(test))
        assert rows[name]["model"] == "cnn-8-16"
        assert rows[name]["latency_ms_p50"] is None
    assert manifest["labels"] == len(shown)
    assert manifest["linear"]["strength"] == probe.strength
    np.testing.assert_allclose(
        manifest["linear"]["validation_accuracy"], probe.validation_accuracy, atol=1e-6
    )
    for name, expected in (("train", train), ("test", test)):
        found = np.load(probed["probe"].folder / f"features_{name}.npy", allow_pickle=False)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
