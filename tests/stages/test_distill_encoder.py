"""What an encoder learns an embedding by: each method, its queue, and what it is refused for."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from kdjax import data, keys, losses, models, parse, train
from kdjax.artifacts import Artifact
from kdjax.artifacts.model import encoder_of
from kdjax.config.embeddings.queues import EmbeddingCompRess
from kdjax.config.embeddings.relations import EmbeddingRKD, EmbeddingSimilarity
from kdjax.config.embeddings.rows import EmbeddingCosine, EmbeddingMSE
from kdjax.contexts import Context
from kdjax.stages import distill_encoder
from kdjax.teacher_targets.targets import targets_of
from kdjax.train import recorder
from kdjax.types import BadInput

SAID = {
    "kind": "cache",
    "teacher": "pretrain",
    "recipe": {"recipe": "crop_flip", "shift": 1, "flip": 0.0},
    "views": 2,
    "signal": {"name": "embedding"},
    "dtype": "float32",
}
LEARNER = {
    "kind": "distill_encoder",
    "cache": "said",
    "encoder": {"name": "cnn", "widths": [4, 8]},
    "steps": 6,
    "batch": 32,
    "log_every_steps": 1,
    "optimizer": {"name": "sgd", "learning_rate": 0.05},
}
METHODS = {
    "seed": {"name": "seed", "queue": 64},
    "compress": {"name": "compress", "queue": 64},
}


def _losses(task):
    return np.array([line["loss"] for line in recorder.read(task.folder / "metrics.jsonl")])


def learn(line, method, **changes):
    learner = {**LEARNER, "method": METHODS[method]}
    return line.run(only=["learner"], stages__said=SAID, stages__learner=learner, **changes)[
        "learner"
    ]


@pytest.fixture(scope="module")
def seeded(line):
    return learn(line, "seed")


def _first_step(line, task):
    """By hand: the projections, the teacher's rows and the first batch of the stage."""
    learner = {**LEARNER, "method": parse.plain(task.stage.method)}
    run, _, splits = line.plan(["learner"], stages__said=SAID, stages__learner=learner)
    inputs = {other.name: Artifact.open(other.folder, other.stage) for other in task.needs}
    context = Context(run, "learner", 0, task.folder, inputs, splits, train.choose("single"))
    taught = targets_of(context, task.stage)
    rows, epochs = data.rows_at(np.arange(32), n=len(splits.train), seed=0)
    lives = jax.tree.map(jnp.asarray, {**taught.resident, **data.resident_arrays(splits.train)})
    feed = {"row": jnp.asarray(rows, jnp.int32), "epoch": jnp.asarray(epochs)}
    batch = taught.views(data.take(lives, feed), lives, jax.random.key(0))
    spec, _ = encoder_of(Artifact.open(task.folder, task.stage), field="here")
    variables = spec.init(keys.stream(jax.random.key(0), "learner/init"))
    outputs, _ = spec.module().apply(
        variables, batch["inputs"], train=True, mutable=["batch_stats"]
    )
    return outputs["projections"], batch["teacher_embedding"]


def _queue(side, width):
    key = keys.stream(keys.stream(jax.random.key(0), "learner/queue"), side)
    rows = np.asarray(jax.random.normal(key, (64, width)))
    return jnp.asarray(rows / np.linalg.norm(rows, axis=-1, keepdims=True))


def test_the_first_loss_of_seed_by_hand(line, seeded):
    mine, theirs = _first_step(line, seeded)
    assert mine.shape == theirs.shape == (32, 16)
    expected = losses.seed(
        mine, theirs, _queue("teacher", 16), student_temperature=0.2, teacher_temperature=0.01
    )
    np.testing.assert_allclose(_losses(seeded)[0], expected.mean(), rtol=1e-5)


def test_the_first_loss_of_compress_by_hand(line):
    task = learn(line, "compress")
    mine, theirs = _first_step(line, task)
    assert (mine.shape, theirs.shape) == ((32, 8), (32, 16))  # the features themselves
    expected = losses.compress(
        mine, theirs, _queue("student", 8), _queue("teacher", 16), temperature=0.04
    )
    np.testing.assert_allclose(_losses(task)[0], expected.mean(), rtol=1e-4)
    manifest = Artifact.open(task.folder, task.stage).manifest
    assert manifest["encoder_model"]["projector"] == []


def test_eight_devices_learn_what_one_learns(line, seeded):
    eight = learn(line.copy("seed_pmap", without="learner"), "seed", parallel="pmap")
    np.testing.assert_allclose(_losses(eight), _losses(seeded), rtol=2e-4)


def test_resumed_is_uninterrupted(line, seeded):
    """The queue and its place come back: it has gone round once when the run is stopped."""
    other = line.copy("seed_resumed", without="learner")
    learner = {**LEARNER, "method": METHODS["seed"], "checkpoint_every_steps": 4}
    changes = {"only": ["learner"], "stages__said": SAID, "stages__learner": learner}
    task = other.run(**changes)["learner"]
    (task.folder / "manifest.json").unlink()
    (task.folder / "variables").rmtree()
    assert (task.folder / "checkpoints" / "4").exists()
    other.run(**changes)
    np.testing.assert_array_equal(_losses(task), _losses(seeded))
    found, expected = (Artifact.open(t.folder, t.stage).manifest for t in (task, seeded))
    assert found["variables"] == expected["variables"]


def test_what_is_remembered():
    """The rows of the batch take the oldest places once the loss has been computed."""
    key = jax.random.key(5)
    model = models.EncoderProjector(models.CNN([4]), models.Projector([3]))
    images = jax.random.normal(key, (8, 8, 8, 1))
    method = EmbeddingCompRess(name="compress", queue=16)
    memory = distill_encoder.memory(method, key, student=3, teacher=5)
    variables = {**model.init(key, images, train=True), train.MEMORY: memory}
    state = train.TrainState.start(variables, optax.sgd(0.1))
    batch = {"inputs": images, "teacher_embedding": jax.random.normal(key, (8, 5))}
    objective = distill_encoder.objective(model, terms=method.terms())
    _, (model_state, metrics) = objective(state.params, state, batch, key)
    after = model_state[train.MEMORY]
    assert set(metrics) == {"loss/compress"}
    assert after["pointer"] == 8
    np.testing.assert_array_equal(after["teacher"][:8], batch["teacher_embedding"])
    for side in ("student", "teacher"):
        np.testing.assert_array_equal(after[side][8:], memory[side][8:])
        np.testing.assert_allclose(jnp.linalg.norm(memory[side], axis=-1), 1.0, rtol=1e-5)
    outputs, _ = model.apply(variables, images, train=True, mutable=["batch_stats"])
    np.testing.assert_allclose(after["student"][:8], outputs["projections"], atol=1e-6)


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        (EmbeddingCosine(name="cosine"), {"cosine": (1.0, losses.embedding_cosine)}),
        (EmbeddingMSE(name="mse"), {"mse": (1.0, losses.embedding_mse)}),
        (
            EmbeddingRKD(name="rkd", angle_weight=3.0),
            {"distance": (25.0, losses.rkd_distance), "angle": (3.0, losses.rkd_angle)},
        ),
        (
            EmbeddingRKD(name="rkd", angle_weight=0.0),
            {"distance": (25.0, losses.rkd_distance)},
        ),
        (
            EmbeddingSimilarity(name="similarity", weight=2.0),
            {"similarity": (2.0, losses.similarity_preserving)},
        ),
    ],
)
def test_the_terms_of_a_method(method, expected):
    rows = jax.random.normal(jax.random.key(0), (2, 6, 5))
    found = method.terms()
    assert found.keys() == expected.keys()
    for name, (weight, loss) in expected.items():
        assert found[name][0] == weight
        value = found[name][1]({"projections": rows[0]}, {"teacher_embedding": rows[1]})
        np.testing.assert_array_equal(value, loss(rows[0], rows[1]))
    assert distill_encoder.memory(method, jax.random.key(0), student=5, teacher=5) == {}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"method": {"name": "seed", "queue": 48}},
            r"learner.method.queue: 48 rows; give a multiple of the 32 examples",
        ),
        (
            {"method": {"name": "compress", "queue": 24}, "accumulate": 2},
            r"learner.method.queue: 24 rows; give a multiple of the 16 examples",
        ),
        (
            {"method": {"name": "seed", "queue": 32, "teacher_temperature": 0.0}},
            "learner.method.teacher_temperature: 0.0 is not in",
        ),
        ({"method": {"name": "sead"}}, "method.name: 'sead' is not one of .*did you mean seed"),
    ],
)
def test_bad_methods(line, changes, message):
    with pytest.raises(BadInput, match=message):
        line.run(only=["learner"], stages__said=SAID, stages__learner={**LEARNER, **changes})
