"""BERT and the bag of embeddings: sizes, padding, types, and what they refuse."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import config, models, parse, tree
from kdjax.inputs import Inputs
from kdjax.models import Compute
from kdjax.types import BadInput, Field, length_field

VOCAB, MOST = 30, 12
SMALL = {
    "vocab": VOCAB,
    "width": 16,
    "depth": 2,
    "heads": 2,
    "mlp": 32,
    "positions": MOST,
    "dropout": 0.5,
    "attention_dropout": 0.5,
}
KINDS = {
    "pooler": models.bert(**SMALL),
    "class": models.bert(**SMALL, pooler=None, types=0),
    "relu": models.bert(**SMALL, pooler="relu", types=0),
    "mean": models.bert(**SMALL, pool="mean", pooler=None, types=1),
    "bag": models.BagOfEmbeddings(VOCAB, 16, hidden=(8,), dropout=0.5),
}
FIELDS = {
    "tokens": Field((MOST,), "int32", VOCAB, ragged=True),
    "tokens_length": length_field(MOST),
}


def texts(n=5):
    random = np.random.default_rng(0)
    lengths = random.integers(2, MOST + 1, n).astype(np.int32)
    tokens = random.integers(1, VOCAB, (n, MOST)).astype(np.int32)
    tokens[np.arange(MOST) >= lengths[:, None]] = 0
    return tokens, lengths


def given(n=5):
    """The same on the device."""
    return tuple(map(jnp.asarray, texts(n)))


@functools.cache
def variables_of(kind):
    made = KINDS[kind].init(jax.random.key(0), *given(), train=True)
    random = np.random.default_rng(1)
    return jax.tree.map(lambda x: x + 0.1 * random.normal(size=x.shape).astype(x.dtype), made)


def features(kind, *inputs, **how):
    inputs = map(jnp.asarray, inputs)
    return np.asarray(KINDS[kind].apply(variables_of(kind), *inputs, **{"train": False, **how}))


PUBLISHED = {
    "bert-base": ({"vocab": 30522}, 109_482_240),
    "bert-large": (
        {"vocab": 30522, "width": 1024, "depth": 24, "heads": 16, "mlp": 4096},
        335_141_888,
    ),
    "distilbert-base": ({"vocab": 30522, "depth": 6, "types": 0, "pooler": None}, 66_362_880),
    "MiniLM-L6-H384": ({"vocab": 30522, "width": 384, "depth": 6, "mlp": 1536}, 22_713_216),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_as_many_parameters_as_published(name):
    """As transformers counts those of the model without a head, with its pooler where it has one."""
    fields, published = PUBLISHED[name]
    tokens = jax.ShapeDtypeStruct((1, 8), jnp.int32)
    found = jax.eval_shape(
        lambda x: models.bert(**fields).init(jax.random.key(0), x, train=False), tokens
    )
    assert sum(leaf.size for leaf in jax.tree.leaves(found)) == published


@pytest.mark.parametrize("kind", KINDS)
def test_padding_changes_nothing(kind):
    tokens, lengths = texts()
    whole = features(kind, tokens, lengths)
    assert whole.dtype == np.float32
    assert whole.std() > 0.05
    filled = tokens.copy()
    behind = np.arange(MOST) >= lengths[:, None]
    assert behind.any()
    filled[behind] = np.random.default_rng(3).integers(1, VOCAB, behind.sum())
    np.testing.assert_allclose(features(kind, filled, lengths), whole, atol=2e-6)
    for row, n in enumerate(lengths):
        alone = features(kind, tokens[row : row + 1, :n])  # without lengths all of it counts
        np.testing.assert_allclose(alone[0], whole[row], atol=2e-6)


def test_the_second_text_of_a_pair_is_of_another_type():
    tokens, lengths = given()
    kept = variables_of("pooler")
    variables = {"params": {**kept["params"], "type": kept["params"]["type"].at[1].add(1.0)}}
    second = lengths - 1

    def out(second, variables=variables):
        return np.asarray(
            KINDS["pooler"].apply(variables, tokens, lengths, second=second, train=False)
        )

    np.testing.assert_array_equal(out(None), out(lengths))
    assert np.abs(out(second) - out(None)).max(-1).min() > 1e-3
    # All of it of type 1 is the same as the tables the other way around.
    turned = {"params": {**kept["params"], "type": variables["params"]["type"][::-1]}}
    np.testing.assert_allclose(out(0 * lengths), out(None, turned), atol=1e-6)
    assert "type" not in variables_of("class")["params"]


@pytest.mark.parametrize("kind", KINDS)
def test_dropout_is_of_training_alone(kind):
    inputs = given()
    same = [features(kind, *inputs, rngs={"dropout": jax.random.key(i)}) for i in (1, 2)]
    np.testing.assert_array_equal(*same)
    apart = [
        features(kind, *inputs, train=True, rngs={"dropout": jax.random.key(i)}) for i in (1, 2)
    ]
    assert np.abs(apart[0] - apart[1]).max() > 0.1


@pytest.mark.parametrize("kind", KINDS)
def test_half_precision(kind):
    module = KINDS[kind].clone(compute=Compute(dtype=jnp.bfloat16))
    inputs = given()
    found = module.apply(variables_of(kind), *inputs, train=False)
    assert found.dtype == jnp.float32
    whole = features(kind, *inputs)
    assert np.abs(found - whole).max() < 0.1 * np.abs(whole).max()


def test_features_of_every_token_come_with_their_mask():
    module = models.bert(**SMALL, pool="none", pooler=None)
    tokens, lengths = given()
    variables = module.init(jax.random.key(0), tokens, lengths, train=False)
    found, mask = module.apply(variables, tokens, lengths, train=False)
    assert found.shape == (5, MOST, 16)
    assert mask.sum(1).tolist() == lengths.tolist()
    mean = module.clone(pool="mean").apply(variables, tokens, lengths, train=False)
    by_hand = [row[:n].mean(0) for row, n in zip(np.asarray(found), lengths, strict=True)]
    np.testing.assert_allclose(mean, by_hand, atol=1e-6)


def test_the_mean_of_embeddings_by_hand():
    module = models.BagOfEmbeddings(VOCAB, 4)
    tokens, lengths = given()
    variables = module.init(jax.random.key(0), tokens, lengths, train=False)
    table = np.asarray(tree.named_leaves(variables)["params/word/embedding"])
    by_hand = [table[row[:n]].mean(0) for row, n in zip(tokens, lengths, strict=True)]
    np.testing.assert_allclose(
        module.apply(variables, tokens, lengths, train=False), by_hand, atol=1e-6
    )


def test_what_a_block_is_by_hand():
    """Post-norm, exact GELU, shares of the attention over the root of a head's width; in float64."""
    module = models.bert(**{**SMALL, "depth": 1}, pool="none", pooler=None, types=0)
    tokens = given(1)[0][:, :2]
    variables = module.init(jax.random.key(0), tokens, train=False)
    p = {n: np.asarray(x, np.float64) for n, x in tree.named_leaves(variables["params"]).items()}

    def norm(x, name):
        x = x - x.mean(-1, keepdims=True)
        x = x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-12)
        return x * p[f"{name}/scale"] + p[f"{name}/bias"]

    from scipy.special import erf, softmax

    x = norm(p["word/embedding"][tokens[0]] + p["position"][:2], "embedding_norm")
    at = "block0/attention"
    q, k, v = (
        np.einsum("td,dhf->htf", x, p[f"{at}/{n}/kernel"]) + p[f"{at}/{n}/bias"][:, None]
        for n in ("query", "key", "value")
    )
    y = softmax(np.einsum("hqf,hkf->hqk", q, k) / np.sqrt(8), axis=-1) @ v
    y = np.einsum("hqf,hfd->qd", y, p[f"{at}/out/kernel"]) + p[f"{at}/out/bias"]
    x = norm(x + y, "block0/attention_norm")
    y = x @ p["block0/mlp_in/kernel"] + p["block0/mlp_in/bias"]
    y = (0.5 * y * (1 + erf(y / np.sqrt(2)))) @ p["block0/mlp_out/kernel"]
    x = norm(x + y + p["block0/mlp_out/bias"], "block0/mlp_norm")
    found, _ = module.apply(variables, tokens, train=False)
    np.testing.assert_allclose(found[0], x, atol=1e-5)


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"heads": 3}, "encoder.heads: 3 do not divide the width of 16"),
        ({"types": 3}, "encoder.types: 3; give 2"),
        ({"pool": "mean"}, "encoder.pooler, pool: a pooler is on the first token"),
        ({"vocab": 0}, "encoder.vocab: 0 is not positive"),
    ],
)
def test_what_is_no_bert(fields, line):
    with pytest.raises(BadInput, match=f"^{line}"):
        models.bert(**{**SMALL, **fields})


def test_a_text_longer_than_the_positions():
    tokens = jnp.zeros((1, MOST + 1), jnp.int32)
    with pytest.raises(BadInput, match=r"^encoder.positions: 12, and a text is of up to 13 tokens"):
        KINDS["class"].init(jax.random.key(0), tokens, train=False)


def encoder(**fields):
    return parse.parse(config.Encoder, fields)


def test_the_vocabulary_is_that_of_the_data():
    inputs = Inputs.of(FIELDS)
    small = {"width": 16, "heads": 2, "depth": 1}
    for name in ("bert", "distilbert", "minilm"):
        assert encoder(name=name, **small).given(inputs).module(Compute()).vocab == VOCAB
        assert encoder(name=name, vocab=50, **small).given(inputs).module(Compute()).vocab == 50
    assert encoder(name="bag_of_embeddings").given(inputs).module(Compute()).vocab == VOCAB
    picture = encoder(name="cnn", widths=[4])
    assert picture.given(inputs) is picture


@pytest.mark.parametrize(
    ("fields", "given", "line"),
    [
        ({"vocab": 29}, FIELDS, "encoder.vocab: 29, and the data have 30 tokens"),
        (
            {"positions": 8},
            FIELDS,
            "encoder.positions: 8, and texts of the data are of up to 12 tok",
        ),
        (
            {},
            {"image": Field((8, 8, 1), "uint8")},
            "encoder: bert reads tokens, and an example is im",
        ),
    ],
)
def test_data_that_an_encoder_does_not_take(fields, given, line):
    with pytest.raises(BadInput, match=f"^{line}"):
        encoder(name="bert", **fields).given(Inputs.of(given))


def test_titles():
    for fields, title in (
        ({"name": "bert"}, "bert-12x768"),
        ({"name": "distilbert", "pooler": "relu"}, "distilbert-6x768-pooler_relu"),
        ({"name": "minilm", "depth": 3, "positions": 64}, "minilm-3x384-p64"),
        (
            {"name": "bert", "heads": 4, "mlp": 100, "pool": "none", "pooler": None},
            "bert-12x768-h4-m100-pool_none-pooler_None",
        ),
        ({"name": "bag_of_embeddings", "hidden": [32]}, "bag-128-32"),
    ):
        assert encoder(**fields).title == title


def test_a_task_of_every_token_takes_the_mask():
    head = models.Linear(models.bert(**SMALL, pool="none", pooler=None), 3, "logits")
    tokens, lengths = given()
    inputs = {"tokens": tokens, "tokens_length": lengths}
    found, _ = head.init_with_output(jax.random.key(0), inputs, train=False)
    assert found["logits"].shape == (5, MOST, 3)
    assert found["mask"].sum() == lengths.sum()
    assert isinstance(head, nn.Module)
