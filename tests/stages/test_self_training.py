"""A classifier that learns from its own predictions, through the stage."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from kdjax import config, evaluate, losses, models, parse, tasks, train
from kdjax.artifacts import Artifact
from kdjax.artifacts.model import Spec, encoder_of, with_encoder
from kdjax.contexts.context import Context
from kdjax.data import Partners
from kdjax.fitting import self_training
from kdjax.fitting.initial_model import Begin
from kdjax.stages import finetune
from kdjax.types import BadInput

WEAK = {"recipe": "crop_flip", "shift": 1, "flip": 0.0}
STRONG = {"recipe": "crop_flip", "shift": 1, "flip": 0.0, "cutout": 2, "turn": 20.0}
OWN = {"weak": WEAK, "strong": STRONG, "every": 2}


def test_a_step_by_hand():
    """Labelled and strong views go through together; the average says what is on the weak ones."""
    model = models.Classifier(models.CNN([4]), 3)
    draw = iter(jax.random.split(jax.random.key(0), 8))
    batch = {
        "inputs": jax.random.normal(next(draw), (2, 6, 6, 1)),
        "label": jnp.asarray([2, 0]),
        "weak": jax.random.normal(next(draw), (4, 6, 6, 1)),
        "strong": jax.random.normal(next(draw), (4, 6, 6, 1)),
    }
    variables = model.init(next(draw), batch["inputs"], train=True)
    target = model.init(next(draw), batch["inputs"], train=True)["params"]
    known = self_training.remembering(variables, 3)
    state = train.TrainState.start(known, optax.sgd(0.1), ema=True).replace(ema_params=target)
    c = parse.parse(config.SelfTraining, {**OWN, "weight": 0.5, "memory": 0.0}, "self_training")
    prior = np.array([0.5, 0.25, 0.25])
    terms = tasks.Classification(classes=3).terms()
    objective = self_training.objective(model, c, terms, prior=prior, steps=1)
    loss, (model_state, metrics) = objective(state.params, state, batch, jax.random.key(1))

    def said(params, images):
        own = {**variables, "params": params}
        return model.apply(own, images, train=True, mutable=["batch_stats"])

    both, moved = said(variables["params"], jnp.concatenate([batch["inputs"], batch["strong"]]))
    ce = losses.cross_entropy(both["logits"][:2], batch["label"]).mean()
    p = np.asarray(jax.nn.softmax(said(target, batch["weak"])[0]["logits"]), np.float64)
    q = p * prior / p.mean(0)
    q /= q.sum(-1, keepdims=True)
    sure = q.max(-1)
    trust = np.exp(-4 * np.minimum(sure - sure.mean(), 0) ** 2 / (2 * sure.var()))
    pseudo = trust * np.asarray(losses.cross_entropy(both["logits"][2:], jnp.asarray(q.argmax(-1))))
    np.testing.assert_allclose(metrics["loss/ce"], ce, rtol=1e-5)
    np.testing.assert_allclose(metrics["loss/pseudo"], pseudo.mean(), rtol=1e-4)
    np.testing.assert_allclose(metrics["trust"], trust.mean(), rtol=1e-4)
    np.testing.assert_allclose(loss, ce + 0.5 * pseudo.mean(), rtol=1e-4)
    jax.tree.map(np.testing.assert_array_equal, model_state["batch_stats"], moved["batch_stats"])


@pytest.fixture(scope="module")
def trained(line):
    return line.run(only=["teacher"], stages__teacher__self_training=OWN)["teacher"]


def _variables(task):
    artifact = Artifact.open(task.folder, task.stage)
    spec = Spec.of(artifact, field="here")
    return artifact.variables(spec.abstract())


def test_it_leaves_a_classifier_and_nothing_of_the_method(line, trained):
    assert set(_variables(trained)) == {"params", "batch_stats"}
    logged = (trained.folder / "metrics.jsonl").read_text()
    assert "loss/pseudo" in logged
    assert "trust" in logged
    plain = line.run(only=["teacher"])["teacher"]
    ours, theirs = (jax.tree.leaves(_variables(task)["params"]) for task in (trained, plain))
    assert any((a != b).any() for a, b in zip(ours, theirs, strict=True))


def test_eight_devices_train_what_one_trains(line, trained):
    eight = line.copy("self_training_pmap", without="teacher")
    stage = {"stages__teacher__self_training": OWN, "stages__teacher__batch": 32}
    one = line.run(only=["teacher"], **stage)["teacher"]
    task = eight.run(only=["teacher"], **stage, parallel="pmap")["teacher"]
    ours, theirs = (jax.tree.leaves(_variables(t)["params"]) for t in (task, one))
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-2, atol=2e-3)


def test_a_head_that_is_a_probe(line):
    """What the linear layer begins with says what logistic regression says of the features."""
    run, _, splits = line.plan(stages__teacher__head="probe")
    done = line.run(only=["pretrain"])["pretrain"]
    artifact = Artifact.open(done.folder, done.stage)
    encoder, read = encoder_of(artifact, field="here")
    dataset = splits.labelled(0)
    spec = Spec(encoder=encoder.encoder, inputs=splits.inputs, task=tasks.of(splits.train))
    variables = with_encoder(spec.init(jax.random.key(0)), read())
    context = Context(
        run=run,
        name="teacher",
        seed=0,
        folder=done.folder,
        inputs={"pretrain": artifact},
        splits=splits,
        parallel=train.choose("single"),
    )
    found = finetune.probed(context, Begin(spec, variables, artifact), dataset)
    batch = dataset.inputs()
    features = spec.module().apply(variables, spec.inputs.see_all(batch), train=False)
    probe = evaluate.linear_probe(features["features"], dataset.labels, classes=10, seed=0)
    logits = spec.predict(found, batch)
    np.testing.assert_allclose(logits, probe.logits(features["features"]), rtol=1e-3, atol=1e-3)
    line.run(only=["teacher"], stages__teacher__head="probe")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch": 9}, "teacher.self_training.every: 2, and each part of a batch"),
        ({"ema": 0.9}, "teacher.ema: 0.9, and self_training keeps an average of its own"),
        (
            {"self_training": {**OWN, "weak": {**WEAK, "size": 4}}},
            "teacher.self_training.weak.size: the model sees all of them",
        ),
        (
            {"self_training": {**OWN, "strong": {**STRONG, "cutout": 99}}},
            "teacher.self_training.strong",
        ),
        (
            {"start_from": None, "encoder": {"name": "cnn", "widths": [4]}, "head": "probe"},
            "teacher.head: probe, and random features are no start",
        ),
        ({"self_training": {**OWN, "momentum": 1.0}}, "self_training.momentum: 1.0 is not in"),
    ],
)
def test_bad_self_training(line, changes, message):
    named = {f"stages__teacher__{name}": value for name, value in changes.items()}
    named = {"stages__teacher__self_training": OWN, **named}
    with pytest.raises(BadInput, match=message):
        line.run(only=["teacher"], **named)


def test_each_labelled_example_is_a_partner_equally_often():
    ids = np.random.default_rng(0).permutation(1000).astype(np.uint32)
    among = np.array([5, 700, 31])
    found = Partners(ids, seed=1, stream=2, among=among)
    rows = np.arange(1000)
    for view in (0, 1):
        partners = found.rows(rows, np.full(1000, view, np.uint32))
        assert sorted(np.bincount(partners, minlength=1000)[among]) == [333, 333, 334]
    order = np.random.default_rng(1).permutation(1000)
    places = np.argsort(order)  # the same examples, kept elsewhere
    moved = Partners(ids[order], seed=1, stream=2, among=places[among][::-1].copy())
    views = np.zeros(1000, np.uint32)
    np.testing.assert_array_equal(order[moved.rows(places, views)], found.rows(rows, views))
