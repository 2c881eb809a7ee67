"""ModernBERT against its equations in float64, its padding, and the names of its published weights."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file
from scipy.special import erf, softmax

from kdjax import config, models, parse, tree, weights
from kdjax.types import BadInput

VOCAB, MOST, WINDOW, THETA, NEAR = 30, 14, 4, 400.0, 50.0
SMALL = {
    "vocab": VOCAB,
    "width": 16,
    "depth": 4,
    "heads": 2,
    "mlp": 24,
    "positions": MOST,
    "window": WINDOW,
    "theta": THETA,
    "window_theta": NEAR,
}
MODULE = models.modern_bert(**SMALL, pool="none")


def texts(n=5, length=MOST):
    random = np.random.default_rng(0)
    lengths = random.integers(6, MOST + 1, n).astype(np.int32)
    lengths[0] = MOST
    tokens = random.integers(1, VOCAB, (n, MOST)).astype(np.int32)
    return jnp.asarray(np.pad(tokens, ((0, 0), (0, length - MOST)))), jnp.asarray(lengths)


@functools.cache
def variables():
    init = functools.partial(MODULE.init, train=False)
    random = np.random.default_rng(1)

    def drawn(leaf):
        x = 0.2 * random.normal(size=leaf.shape).astype(leaf.dtype)
        return jnp.asarray(x + 1 if leaf.ndim == 1 else x)

    return jax.tree.map(drawn, jax.eval_shape(init, jax.random.key(0), *texts()))


@functools.cache
def given(length=MOST):
    """What it gives of the texts, padded to a length, and the mask."""
    module = models.modern_bert(**{**SMALL, "positions": length}, pool="none")
    of = jax.jit(functools.partial(module.apply, train=False))
    found, mask = of(variables(), *texts(length=length))
    return np.asarray(found), np.asarray(mask)


def normalised(x, params):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt(x.var(-1, keepdims=True) + 1e-5) * np.asarray(params["scale"])


def turned(x, theta):
    """Each pair of numbers as one complex number, times `exp(i position speed)`."""
    half = x.shape[-1] // 2
    speed = theta ** (-2.0 * np.arange(half) / x.shape[-1])
    turn = np.exp(1j * np.arange(x.shape[1])[:, None] * speed)[None, :, None]
    found = (x[..., :half] + 1j * x[..., half:]) * turn
    return np.concatenate([found.real, found.imag], axis=-1)


def by_hand(params, tokens, lengths):
    """Warner et al. 2024, in float64."""
    params = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    tokens, lengths = np.asarray(tokens), np.asarray(lengths)
    x = normalised(params["word"]["embedding"][tokens], params["embedding_norm"])
    inside = np.arange(tokens.shape[1])[None] < lengths[:, None]
    apart = np.abs(np.subtract.outer(np.arange(tokens.shape[1]), np.arange(tokens.shape[1])))
    for i in range(SMALL["depth"]):
        p, near = params[f"block{i}"], i % 3 != 0
        y = x if i == 0 else normalised(x, p["attention_norm"])
        query, key, value = (
            np.einsum("btw,whd->bthd", y, p["attention"][name]["kernel"])
            for name in ("query", "key", "value")
        )
        theta = NEAR if near else THETA
        scores = np.einsum("bqhd,bkhd->bhqk", turned(query, theta), turned(key, theta))
        seen = inside[:, None, None] & (apart <= WINDOW // 2 if near else True)
        shares = softmax(np.where(seen, scores / np.sqrt(query.shape[-1]), -1e30), axis=-1)
        found = np.einsum("bhqk,bkhd->bqhd", shares, value)
        x = x + np.einsum("bqhd,hdw->bqw", found, p["attention"]["out"]["kernel"])
        y = normalised(x, p["mlp_norm"])
        into, gate = y @ p["mlp_in"]["kernel"], y @ p["mlp_gate"]["kernel"]
        x = x + (into * 0.5 * (1 + erf(into / np.sqrt(2))) * gate) @ p["mlp_out"]["kernel"]
    return normalised(x, params["final_norm"])


def test_it_is_its_equations():
    tokens, lengths = texts()
    found, inside = given()
    expected = by_hand(variables()["params"], tokens, lengths)
    np.testing.assert_array_equal(inside.sum(1), lengths)
    np.testing.assert_allclose(found[inside], expected[inside], atol=2e-5)
    turned_round = by_hand(variables()["params"], tokens[:, ::-1], np.full_like(lengths, MOST))
    assert np.abs(turned_round[:, ::-1] - expected)[0].max() > 1e-2  # places matter


def test_padding_changes_nothing():
    found, inside = given()
    longer, _ = given(20)
    np.testing.assert_allclose(longer[:, :MOST][inside], found[inside], atol=2e-6)


def test_a_product_of_two_depends_on_how_far_apart_they_are():
    random = np.random.default_rng(0)
    query, key = (jnp.asarray(random.normal(size=(1, 1, 1, 8)), jnp.float32) for _ in range(2))
    turn = functools.partial(models.rotated, theta=100.0)
    queries, keys = (np.asarray(turn(jnp.tile(x, (1, 12, 1, 1))))[0, :, 0] for x in (query, key))
    products = queries @ keys.T
    for apart in range(-6, 7):
        np.testing.assert_allclose(np.diag(products, apart), np.diag(products, apart)[0], atol=1e-5)
    assert np.std(products[0]) > 0.05


PUBLISHED = {
    "ModernBERT-base": ({"vocab": 50368}, 149_014_272),
    "ModernBERT-large": (
        {"vocab": 50368, "width": 1024, "depth": 28, "heads": 16, "mlp": 2624},
        394_781_696,
    ),
}


@pytest.mark.parametrize(
    "name", ["ModernBERT-base", pytest.param("ModernBERT-large", marks=pytest.mark.thorough)]
)
def test_as_many_parameters_as_its_layers_have(name):
    """As transformers counts those of the model without a head."""
    fields, expected = PUBLISHED[name]
    module = models.modern_bert(**fields)
    tokens = jax.ShapeDtypeStruct((1, 8), jnp.int32)
    found = jax.eval_shape(functools.partial(module.init, train=False), jax.random.key(0), tokens)
    assert tree.size(found) == expected


def test_weights_go_out_by_the_names_of_transformers_and_in_again(tmp_path):
    module = models.modern_bert(**SMALL)
    given = {**variables()["params"]}
    kernel = jnp.asarray(np.random.default_rng(2).normal(size=(16, 3)), jnp.float32)
    whole = {"params": {"encoder": given, "classifier": {"kernel": kernel, "bias": kernel[0]}}}
    file = str(tmp_path / "model.safetensors")
    weights.write(file, module, whole, layout="hf")
    said = load_file(file)
    assert said["model.layers.1.attn.Wqkv.weight"].shape == (48, 16)
    assert said["model.layers.1.mlp.Wi.weight"].shape == (48, 16)
    assert "model.layers.0.attn_norm.weight" not in said
    found, account = weights.read(file, module, texts()[0], classes=3)
    assert account.head == "taken"
    for name, leaf in tree.named_leaves(whole).items():
        np.testing.assert_array_equal(tree.named_leaves(found)[name], leaf, err_msg=name)


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"heads": 16}, r"^encoder\.heads: 16 do not part a width of 16 into even numbers; take"),
        ({"window": 0}, r"^encoder\.window: 0 is not positive"),
    ],
)
def test_sizes_that_are_none(fields, line):
    with pytest.raises(BadInput, match=line):
        models.modern_bert(**{**SMALL, **fields})


def test_a_text_is_no_longer_than_its_positions():
    tokens = jnp.ones((1, MOST + 1), jnp.int32)
    with pytest.raises(BadInput, match=r"^encoder\.positions: 14, and a text is of up to 15"):
        MODULE.apply(variables(), tokens, train=False)


def test_a_config_says_all_of_it():
    c = parse.parse(config.Encoder, {"name": "modernbert", **SMALL, "pool": "none"})
    assert c.module(models.Compute()) == MODULE
    assert c.title == "modernbert-4x16-h2-p14-w4-pool_none"
