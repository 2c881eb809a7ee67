"""What a student of texts is taught has one loss and one gradient, however batches are cut and padded."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from kdjax import config, inputs, models, parse, tasks, teacher, train
from kdjax.stages import distill
from kdjax.teacher_targets import features
from kdjax.types import Field, length_field
from tests import runs

ROWS, VOCAB, MOST, WIDE, MASK = 32, 23, 12, 20, 4
INPUTS = inputs.Inputs.of(
    {
        "tokens": Field((WIDE,), "int32", VOCAB, ragged=True, mask=MASK, frame=(0, 1, 2, 3, 4)),
        "tokens_length": length_field(WIDE),
    }
)
BLOCKS = {"student": ["encoder/block0"], "teacher": ["encoder/block1"]}
ATTENTIONS = {side: [f"{path}/attention" for path in paths] for side, paths in BLOCKS.items()}
TERMS = {
    "cosine": {"name": "hidden_cosine", **BLOCKS},
    "first": {"name": "pkd", **BLOCKS},
    "scores": {"name": "attention_scores", **ATTENTIONS},
    "relations": {"name": "attention_relations", **ATTENTIONS, "heads": 4},
}
NAMES = (*TERMS, "kd", "ce")
TASK = tasks.MaskedLM(classes=VOCAB, positions=WIDE, mask=MASK)
SIGNAL = teacher.Positions(of=teacher.TopK(classes=VOCAB, k=5, temperatures=(2.0,)), most=WIDE)


def model(width, depth):
    encoder = models.bert(
        vocab=VOCAB,
        width=width,
        depth=depth,
        heads=2,
        mlp=16,
        positions=WIDE,
        pool="none",
        pooler=None,
        dropout=0.0,
        attention_dropout=0.0,
    )
    return TASK.head(encoder)


def drawn(module, seed):
    """Random variables, and none of them zero: a head's bias, say."""
    shapes = jax.eval_shape(
        functools.partial(module.init, train=True), jax.random.key(0), INPUTS.blank()
    )
    random = np.random.default_rng(seed)

    def leaf(shape):
        x = random.normal(size=shape.shape, scale=0.3).astype(np.float32)
        return jnp.asarray(x + 1 if shape.ndim == 1 else x)

    return jax.tree.map(leaf, shapes)


@functools.cache
def taught():
    """The student's variables, its terms, and a batch with what the teacher says of it, `MOST` long."""
    student, other = model(8, 1), model(12, 2)
    variables, theirs = drawn(student, 1), drawn(other, 2)
    random = np.random.default_rng(0)
    tokens = random.integers(5, VOCAB, (ROWS, MOST)).astype(np.int32)
    length = random.integers(3, MOST + 1, ROWS).astype(np.int32)
    length[0] = MOST
    inside = np.arange(MOST) < length[:, None]
    hidden = inside & (random.uniform(size=tokens.shape) < 0.3)
    given = {"tokens": np.where(hidden, MASK, tokens), "tokens_length": length}
    terms = []
    for name, c in ((name, parse.parse(config.FeatureTerm, c)) for name, c in TERMS.items()):
        shapes = []
        for module, own, paths in (
            (student, variables, c.student),
            (other, theirs, c.teacher),
        ):
            see = functools.partial(models.capture, module, paths=c.tapped(paths), train=False)
            found = jax.eval_shape(lambda v, see=see: see(v, INPUTS.blank()).features, own)
            shapes.append(tuple(found[path].shape for path in c.tapped(paths)))
        terms.append(features.Term(name, c, 1.0, (shapes[0], shapes[1]), (), INPUTS))
    paths = tuple(dict.fromkeys(path for term in terms for path in term.teacher))
    see = jax.jit(lambda v, x: models.capture(other, v, x, paths=paths, train=False))
    seen = see(theirs, given)
    batch = {
        **{f"inputs/{name}": x for name, x in given.items()},
        "hidden": hidden,
        "label": np.where(inside, tokens, -1),
        **SIGNAL.encode(seen.outputs["logits"], jnp.asarray(length)),
        **{f"teacher_features/{path}": x for path, x in seen.features.items()},
    }
    key = jax.random.key(3)
    begun = features.beside(variables, terms, key=key, examples=ROWS)
    return begun, tuple(terms), jax.device_get(batch)


def padded(batch, length):
    """The batch with all that is of positions made longer: by any tokens, and by what is said of them."""
    random, found = np.random.default_rng(7), {}
    behind = {"hidden": False, "label": -1, "inputs/tokens": 9}
    for name, x in batch.items():
        if x.ndim > 1 and x.shape[1] == MOST:
            more = random.normal(size=(len(x), length - MOST, *x.shape[2:]))
            more = np.full_like(more, behind[name]) if name in behind else more
            x = np.concatenate([x, more.astype(x.dtype)], axis=1)
        found[name] = x
    own = {name: found.pop(f"inputs/{name}") for name in ("tokens", "tokens_length")}
    return {**found, "inputs": own}


def stepped(way, *, accumulate, length):
    """Metrics of one step, and the gradient by name."""
    variables, terms, batch = taught()
    parallel, tx = runs.WAYS[way](), optax.sgd(1.0)
    objective = distill.objective(
        model(8, 1),
        TASK,
        signal=SIGNAL,
        temperature=2.0,
        kd_weight=1.0,
        ce_weight=1.0,
        of_features=terms,
        axis_name=parallel.axis_name,
    )
    step = train.make_train_step(objective, tx, accumulate=accumulate, axis_name=parallel.axis_name)
    run_steps = parallel.compile(train.make_run_steps(lambda resident, feed, key: feed, step))
    before = jax.device_get(variables["params"])
    feed = jax.tree.map(lambda x: x[None], padded(batch, length))
    state, metrics = run_steps(
        parallel.replicate(train.TrainState.start(variables, tx)),
        {},
        parallel.feed(feed),
        parallel.replicate(jax.random.key(0)),
    )
    after = jax.device_get(state.params)
    return jax.device_get(metrics), jax.tree.map(np.subtract, before, after)


@pytest.fixture(scope="module")
def whole():
    return stepped("single", accumulate=1, length=MOST)


@pytest.mark.parametrize(
    ("way", "accumulate", "length"),
    [
        ("pmap", 4, WIDE),
        pytest.param("single", 1, WIDE, marks=pytest.mark.thorough),
        pytest.param("single", 4, WIDE, marks=pytest.mark.thorough),
        pytest.param("single", 2, MOST, marks=pytest.mark.thorough),
        pytest.param("pmap", 1, WIDE, marks=pytest.mark.thorough),
        pytest.param("pmap", 2, MOST, marks=pytest.mark.thorough),
    ],
)
def test_devices_parts_and_padding_change_no_loss_and_no_gradient(whole, way, accumulate, length):
    metrics, gradient = stepped(way, accumulate=accumulate, length=length)
    expected, slopes = whole
    for name in ("loss", *(f"loss/{name}" for name in NAMES)):
        assert abs(float(expected[name][0])) > 1e-3, name
        np.testing.assert_allclose(metrics[name], expected[name], rtol=1e-6, atol=1e-6)
    largest = max(np.abs(x).max() for x in jax.tree.leaves(slopes))
    assert largest > 0.01
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=0, atol=1e-6 * largest), gradient, slopes
    )
