"""Training as a notebook does it, against what the stages do."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from etils import epath

import kdjax
from kdjax import config, data, models, parse, pipeline, tasks, train
from kdjax.contexts import Splits
from kdjax.inputs import Inputs
from kdjax.losses import cross_entropy, kd_kl
from kdjax.types import BadInput
from tests.stages.conftest import LINE, changed

CNN = {"name": "cnn", "widths": [4, 8]}


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    folder = epath.Path(tmp_path_factory.mktemp("run"))
    run = parse.parse(config.Run, changed(LINE, stages__student__steps=1))
    splits = Splits(run.data)
    pipeline.execute(run, pipeline.plan(run, folder, splits), splits)
    return folder


class Maps(nn.Module):
    """Gives no features of an example."""

    @nn.compact
    def __call__(self, image, *, train):
        return nn.Conv(2, (3, 3))(image)


def _kd(outputs, batch):
    return kd_kl(outputs["logits"], batch["teacher_logits"], temperature=2.0)


def test_the_first_step_is_what_the_teacher_said_of_the_views(workdir):
    """By hand: the same examples, in the same views, with the entries of the cache."""
    cached = kdjax.cached(workdir)
    fitted = kdjax.fit(
        CNN, cached, {"kd": (0.5, _kd)}, steps=2, batch=32, optimizer=optax.sgd(0.0), seed=3
    )
    rows, _ = data.rows_at(np.arange(32), n=len(cached.splits.train), seed=3)
    views = cached.views(0, rows)
    entries = cached.cache.read(cached.splits.train.ids[rows], np.zeros(32, np.uint32))
    said = jax.tree.map(jnp.asarray, entries)
    module = models.Classifier(models.CNN((4, 8)), 10)
    variables = {"params": fitted.variables["params"], "batch_stats": _fresh(fitted.variables)}
    outputs, _ = module.apply(variables, views, train=True, mutable=["batch_stats"])
    loss = 0.5 * kd_kl(outputs["logits"], said["teacher_logits"], temperature=2.0).mean()
    np.testing.assert_allclose(fitted.history["loss"][0], loss, rtol=1e-5)
    assert fitted.history["loss/kd"].shape == (2,)


def _fresh(variables):
    """Statistics do not matter to a pass in training; those of an untrained model will do."""
    return jax.tree.map(jnp.zeros_like, variables["batch_stats"])


def test_a_student_learns_and_is_scored(workdir):
    cached = kdjax.cached(workdir, "cache", seed=0)

    def agrees(outputs, batch):
        return cross_entropy(outputs["logits"], batch["label"]), batch["label"] >= 0

    terms = {"kd": (0.9, _kd), "ce": (0.5, agrees)}
    fitted = kdjax.fit(
        models.CNN((8, 16)), cached, terms, steps=120, batch=64, optimizer=optax.adamw(1e-2)
    )
    loss = fitted.history["loss"]
    assert loss[-20:].mean() < 0.7 * loss[:20].mean()
    test = cached.splits.test
    logits = np.asarray(fitted.predict(test.inputs())["logits"])
    assert fitted.scores["accuracy"] == pytest.approx((logits.argmax(-1) == test.labels).mean())
    assert fitted.scores["accuracy"] > 0.3


def test_mixed_views_are_those_that_the_teacher_saw(tmp_path):
    mixed = changed(LINE, stages__cache__mix={"name": "mixup"}, stages__student__steps=1)
    run = parse.parse(config.Run, mixed)
    splits = Splits(run.data)
    tasks_ = [t for t in pipeline.plan(run, epath.Path(tmp_path), splits) if t.name != "student"]
    pipeline.execute(run, tasks_, splits)
    cached = kdjax.cached(tmp_path)
    seen = {}

    def sees(outputs, batch):
        seen.update({name: batch[name].shape for name in ("weight", "partner_label")})
        return (outputs["logits"] - batch["teacher_logits"]).sum(-1) ** 2

    how = {"steps": 1, "batch": 32, "optimizer": optax.sgd(0.0), "seed": 3}
    fitted = kdjax.fit(CNN, cached, {"one": (1.0, sees)}, **how)
    assert seen == {"weight": (32,), "partner_label": (32,)}
    rows, _ = data.rows_at(np.arange(32), n=len(cached.splits.train), seed=3)
    entries = cached.cache.read(cached.splits.train.ids[rows], np.zeros(32, np.uint32))
    views = cached.views(0, rows)
    variables = {"params": fitted.variables["params"], "batch_stats": _fresh(fitted.variables)}
    outputs, _ = fitted.module.apply(variables, views, train=True, mutable=["batch_stats"])
    loss = ((outputs["logits"] - entries["teacher_logits"]).sum(-1) ** 2).mean()
    np.testing.assert_allclose(fitted.history["loss"][0], loss, rtol=1e-4)


def test_a_dataset_of_ones_own_without_a_cache():
    train_set, test = data.digits("train[:300]"), data.digits("test[:100]")
    views = {"recipe": "crop_flip", "shift": 1, "flip": 0.0}
    how = {"steps": 60, "batch": 64, "optimizer": optax.adamw(1e-2), "test": test}
    net = {"name": "cnn", "widths": [16, 32]}
    fitted = kdjax.fit(net, train_set, views=views, **how)
    assert fitted.scores["accuracy"] > 0.5
    again = kdjax.fit(net, train_set, views=views, **how)
    np.testing.assert_array_equal(fitted.history["loss"], again.history["loss"])
    assert kdjax.fit(CNN, train_set, **{**how, "test": None, "steps": 1}).scores == {}
    assert fitted.inputs == Inputs.of(train_set.fields)
    assert tasks.of(train_set).classes == 10


def test_what_cannot_be_is_one_line(workdir, tmp_path):
    with pytest.raises(
        BadInput, match="it has no finished cache 'cache' of seed None; run it first"
    ):
        kdjax.cached(tmp_path)
    with pytest.raises(BadInput, match="no finished cache 'cache' of seed 9"):
        kdjax.cached(workdir, seed=9)
    how = {"steps": 3, "batch": 8, "optimizer": optax.sgd(1.0)}
    with pytest.raises(BadInput, match=r"^encoder.name: 'cnnn' is not one of .*did you mean cnn"):
        kdjax.fit({"name": "cnnn"}, data.digits("train[:20]"), **how)

    def nothing(outputs, batch):
        return jnp.full(len(batch["label"]), jnp.nan)

    with pytest.raises(train.Diverged, match="the loss of step 1 is nan"):
        kdjax.fit(CNN, data.digits("train[:20]"), {"nothing": (1.0, nothing)}, **how)
    few, net = data.digits("train[:20]"), {**how, "steps": 1}
    for changes, line in (
        ({"steps": 0}, r"^steps: 0 is not in \[1, 2\^31\)$"),
        ({"batch": 21}, "^batch: 21 of 20 training examples; give 1 to 20$"),
        (
            {"test": data.from_arrays(np.zeros((3, 9, 9, 1), np.uint8), [0] * 3, classes=10)},
            "^test: ",
        ),
        ({"terms": {"far": (1.0, lambda o, b: o["logits"].sum(0))}}, "^terms.far: it gave float32"),
        ({"encoder": nn.Conv(2, (3, 3))}, "^encoder: "),
        (
            {"encoder": Maps()},
            r"^encoder: it gave float32 \(2, 8, 8, 2\) of two examples; features",
        ),
        ({"on": few.hide_labels(np.arange(0))}, "^on: no example of .* has a label; give terms"),
    ):
        with pytest.raises(BadInput, match=line):
            kdjax.fit(**{"encoder": CNN, "on": few, **net, **changes})
    unlabelled = few.hide_labels(np.arange(0))
    assert kdjax.fit(CNN, few, test=unlabelled, **net).scores == {}
    with pytest.raises(AttributeError, match="has no attribute 'fitt'"):
        _ = kdjax.fitt
