"""Hidden tokens: which they are, whatever the padding, and an encoder that learns to say them."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.special import log_softmax

from kdjax import config, parse, ssl, train, views
from kdjax.inputs import Inputs
from kdjax.models import Compute
from kdjax.types import BadInput, Field, length_field

VOCAB, MOST, MASK, FRAME = 30, 12, 4, (0, 1, 2, 3, 4)
HOW = {"share": 0.3, "mask": MASK, "frame": FRAME, "below": VOCAB}
FIELDS = {
    "tokens": Field((MOST,), "int32", VOCAB, ragged=True, mask=MASK, frame=FRAME),
    "tokens_length": length_field(MOST),
}
ENCODER = {
    "name": "bert",
    "width": 16,
    "depth": 2,
    "heads": 2,
    "mlp": 32,
    "positions": MOST,
    "dropout": 0.0,
    "attention_dropout": 0.0,
    "pooler": None,
    "pool": "mean",
}


def texts(n):
    """A word, and then again and again the one that follows it."""
    random = np.random.default_rng(0)
    lengths = random.integers(5, MOST + 1, n)
    tokens = 5 + (random.integers(25, size=n)[:, None] + np.arange(MOST)) % 25
    tokens[:, 0] = 2
    tokens[np.arange(n), lengths - 1] = 3
    tokens[np.arange(MOST) >= lengths[:, None]] = 0
    return jnp.asarray(tokens, jnp.int32), jnp.asarray(lengths, jnp.int32)


def masked(tokens, lengths, **changes):
    keys = jax.random.split(jax.random.key(1), len(tokens))
    return jax.vmap(lambda k, t, n: views.masked_tokens(k, t, n, **{**HOW, **changes}))(
        keys, tokens, lengths
    )


def test_which_tokens_are_hidden_and_by_what():
    tokens, lengths = texts(2000)
    found, hidden = map(np.asarray, masked(tokens, lengths))
    tokens, lengths = np.asarray(tokens), np.asarray(lengths)
    content = (tokens > 4) & (np.arange(MOST) < lengths[:, None])
    assert not hidden[~content].any()
    assert (found[~hidden] == tokens[~hidden]).all()
    n = content.sum()
    assert abs(hidden.sum() / n - 0.3) < 4 * (0.3 * 0.7 / n) ** 0.5
    n = hidden.sum()
    for share, is_so in ((0.8, found == MASK), (0.1, found == tokens)):
        extra = {0.8: 0.1 / VOCAB, 0.1: 0.1 / VOCAB}[share]  # what is drawn may be that one, too
        expected = share + extra
        got = (is_so & hidden).sum() / n
        assert abs(got - expected) < 4 * (expected * (1 - expected) / n) ** 0.5, share
    others = found[hidden & (found != MASK) & (found != tokens)]
    assert set(others) == set(range(VOCAB)) - {MASK}


def test_padding_changes_no_draw():
    tokens, lengths = texts(50)
    whole = masked(tokens, lengths)
    wider = masked(jnp.pad(tokens, ((0, 0), (0, 5))), lengths)
    for a, b in zip(whole, wider, strict=True):
        np.testing.assert_array_equal(b[:, :MOST], a)
        assert not np.asarray(b[:, MOST:]).any()


def prepared(fields=FIELDS, encoder=ENCODER, **method):
    """The method of a stage, its model's first variables, and what it sees of a batch."""
    inputs = Inputs.of(fields)
    encoder = parse.parse(config.Encoder, encoder).given(inputs)
    stage = parse.parse(
        config.Stage,
        {
            "kind": "pretrain",
            "encoder": parse.plain(encoder),
            "views": {"recipe": "eval"},
            "projector": [],
            "method": {"name": "masked_lm", **method},
            "steps": 10,
            "batch": 8,
            "optimizer": {"name": "adamw", "learning_rate": 1e-2},
        },
    )
    module = encoder.module(Compute())
    trained = ssl.Trained(module, module, 16, inputs, Compute(), 10)
    made = stage.method.method(trained)
    recipe = stage.views.recipe_for(inputs)
    draw = stage.method.draw(recipe, stage, stream="net", inputs=inputs)
    example = module.init(jax.random.key(0), *texts(1), train=False)
    variables = made.start({"params": {"encoder": example["params"]}}, jax.random.key(2))
    return made, variables, draw


def batch_of(n, epoch=0):
    tokens, lengths = texts(n)
    return {
        "id": jnp.arange(n, dtype=jnp.uint32),
        "epoch": jnp.full(n, epoch, jnp.uint32),
        "inputs": {"tokens": tokens, "tokens_length": lengths},
    }


def test_the_loss_is_of_what_is_hidden_alone():
    made, variables, draw = prepared(share=0.3)
    state = train.TrainState.start(variables, optax.sgd(0.1))
    seen = draw(batch_of(16), {}, jax.random.key(0))
    loss, (_, metrics) = made.objective()(state.params, state, seen, jax.random.key(0))
    outputs, _ = made.forward(state.params, state, seen, jax.random.key(0))
    assert outputs["logits"].shape == (16, MOST, VOCAB)
    assert outputs["features"].shape == (16, 16)
    logits = np.asarray(outputs["logits"], np.float64)
    hidden, whole = np.asarray(seen["hidden"]), np.asarray(seen["whole"])
    of = -np.take_along_axis(log_softmax(logits, axis=-1), whole[..., None], -1)[..., 0]
    np.testing.assert_allclose(loss, of[hidden].mean(), rtol=1e-5)
    right = (logits.argmax(-1) == whole)[hidden].mean()
    np.testing.assert_allclose(metrics["accuracy/masked"], right, rtol=1e-6)


def test_other_tokens_are_hidden_in_each_epoch_and_the_same_ones_again():
    _, _, draw = prepared(share=0.3)
    key = jax.random.key(0)
    first, again, other = (draw(batch_of(16, e), {}, key)["hidden"] for e in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (np.asarray(first) != np.asarray(other)).any()


def test_padding_changes_neither_loss_nor_gradient():
    made, variables, draw = prepared(share=0.3)
    state = train.TrainState.start(variables, optax.sgd(0.1))
    tokens, lengths = texts(8)
    tokens, lengths = jnp.where(jnp.arange(MOST) < 9, tokens, 0), jnp.minimum(lengths, 9)
    found = []
    for width in (9, MOST):
        batch = {**batch_of(8), "inputs": {"tokens": tokens[:, :width], "tokens_length": lengths}}
        seen = draw(batch, {}, jax.random.key(0))
        value = jax.value_and_grad(
            lambda p, seen=seen: made.objective()(p, state, seen, jax.random.key(0))[0]
        )
        found.append(jax.jit(value)(state.params))
    assert jax.tree.all(jax.tree.map(lambda a, b: np.allclose(a, b, atol=1e-6), *found))


def test_it_learns_to_say_them():
    made, variables, draw = prepared(share=0.2)
    tx = optax.adam(1e-2)
    state = train.TrainState.start(variables, tx)
    step = jax.jit(train.make_train_step(made.objective(), tx))
    losses = []
    for epoch in range(120):
        seen = draw(batch_of(64, epoch), {}, jax.random.key(0))
        state, metrics = step(state, seen, jax.random.key(epoch))
        losses.append(float(metrics["loss/masked_lm"]))
    assert losses[0] > 3.0  # log 30 is 3.4
    assert np.mean(losses[-10:]) < 1.8


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (
            {"encoder": {"name": "cnn", "widths": [4]}},
            r"net\.encoder\.name: cnn gives nothing",
        ),
        (
            {"encoder": {**ENCODER, "pool": "none"}},
            r"net\.encoder\.pool: features are of whole",
        ),
        ({"projector": [8]}, r"net\.projector: masked_lm has a head in its place"),
    ],
)
def test_stages_that_it_is_not_for(changes, line):
    plain = {
        "kind": "pretrain",
        "encoder": ENCODER,
        "views": {"recipe": "eval"},
        "projector": [],
        "method": {"name": "masked_lm"},
        "steps": 1,
        "batch": 8,
        "optimizer": {"name": "adamw", "learning_rate": 1e-2},
    }
    with pytest.raises(BadInput, match=line):
        parse.parse(config.Stage, {**plain, **changes}, "config.stages.net")


@pytest.mark.parametrize(
    ("encoder", "views", "is_refused"),
    [
        ({**ENCODER, "dropout": 0.0, "attention_dropout": 0.0}, {"recipe": "eval"}, True),
        ({"name": "lstm", "widths": [4], "embedding": 4}, {"recipe": "eval"}, True),
        (
            {"name": "lstm", "widths": [4], "embedding": 4, "dropout": 0.1},
            {"recipe": "eval"},
            False,
        ),
        ({**ENCODER, "dropout": 0.0, "attention_dropout": 0.1}, {"recipe": "eval"}, False),
        ({"name": "lstm", "widths": [4], "embedding": 4}, {"recipe": "tokens", "drop": 0.1}, False),
    ],
)
def test_two_views_that_are_the_same_are_not_compared(encoder, views, is_refused):
    """SimCSE without a dropout learns nothing: each text is itself."""
    method = {"name": "simclr", "temperature": 0.05}
    line = r"net\.encoder\.dropout: 0\.0, and two views of an example are the same: simclr.*net\.views$"
    _pretrained(line if is_refused else None, encoder=encoder, views=views, method=method)


@pytest.mark.parametrize(("views", "is_refused"), [("eval", True), ("simclr", False)])
def test_two_pictures_that_are_the_same_are_not_compared(views, is_refused):
    line = r"net\.views\.recipe: eval, and two views of an example are the same: byol compares them"
    net = {"encoder": {"name": "plain_cnn", "widths": [4]}, "method": {"name": "byol"}}
    _pretrained(line if is_refused else None, views={"recipe": views}, **net)


def _pretrained(line, **given):
    """A stage that is refused with a line that is like this one; None: that is taken."""
    optimizer = {"name": "adamw", "learning_rate": 1e-2}
    values = {"kind": "pretrain", "steps": 1, "batch": 8, "optimizer": optimizer, **given}
    with contextlib.nullcontext() if line is None else pytest.raises(BadInput, match=line):
        parse.parse(config.Stage, values, "config.stages.net")


def test_texts_without_a_token_for_it():
    fields = {**FIELDS, "tokens": Field((MOST,), "int32", VOCAB, ragged=True)}
    with pytest.raises(
        BadInput, match=r"^method.name: masked_lm hides tokens, and an example is tok"
    ):
        prepared(fields)
