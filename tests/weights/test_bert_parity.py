"""BERT and DistilBERT as transformers has them: random weights through its files, equal outputs."""

import copy

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from kdjax import models, weights
from kdjax.models import Classifier, Compute
from tests.weights.parity import TOLERANCE, ZERO, needed, randomised

torch, transformers = needed("torch", "transformers")

pytestmark = pytest.mark.thorough

SIZES = {"vocab": 40, "width": 32, "depth": 3, "heads": 4, "mlp": 64, "positions": 16}


def bert_config():
    return transformers.BertConfig(
        vocab_size=40,
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=16,
        num_labels=5,
        attn_implementation="eager",
    )


def distilbert_config():
    return transformers.DistilBertConfig(
        vocab_size=40,
        dim=32,
        n_layers=3,
        n_heads=4,
        hidden_dim=64,
        max_position_embeddings=16,
        num_labels=5,
        attn_implementation="eager",
    )


def texts(pairs: bool):
    """Tokens, lengths, where the second text begins, and the same as transformers takes them."""
    random = np.random.default_rng(0)
    lengths = random.integers(4, 17, 6)
    tokens = random.integers(1, 40, (6, 16))
    tokens[np.arange(16) >= lengths[:, None]] = 0
    second = random.integers(2, lengths)
    theirs = {
        "input_ids": torch.from_numpy(tokens),
        "attention_mask": torch.from_numpy((np.arange(16) < lengths[:, None]).astype(np.int64)),
    }
    if pairs:
        types = (np.arange(16) >= second[:, None]).astype(np.int64)
        theirs["token_type_ids"] = torch.from_numpy(types)
    ours = [jnp.asarray(x, jnp.int32) for x in (tokens, lengths, second)]
    return ours, theirs


def held(folder, config, kind, fields, *, pairs=False, classes=None, of):
    """The largest difference of what both give, relative to the largest number."""
    model = randomised(getattr(transformers, kind)(config())).eval()
    model.save_pretrained(folder)
    module = models.bert(**SIZES, **fields)
    (tokens, lengths, second), theirs = texts(pairs)
    variables, account = weights.read(str(folder), module, tokens, classes=classes)
    assert account.layout == "hf"
    assert account.matched + len(account.ignored) == account.tensors
    with torch.no_grad():
        wanted = of(model(**theirs, output_hidden_states=True)).numpy()
    inputs = {"tokens": tokens, "tokens_length": lengths}
    if pairs:
        inputs["second"] = second
    if classes is None:
        found = jax.jit(lambda v: module.apply(v, **inputs, train=False))(variables)
    else:
        outputs = Classifier(module, classes).apply(variables, inputs, train=False)
        found = outputs["logits"]
    if isinstance(found, tuple):
        found, mask = found
        found, wanted = found * mask[..., None], wanted * np.asarray(mask)[..., None]
    assert np.abs(wanted).max() > 0.1
    return float(np.abs(np.asarray(found) - wanted).max() / np.abs(wanted).max()), account


def in_torch(model, theirs, of):
    """Gradients in float64 without dropout, by the names of the file."""
    model = copy.deepcopy(model).double()
    found = of(model(**theirs, output_hidden_states=True))
    if found.ndim == 3:
        found = found * theirs["attention_mask"][..., None]
    torch.tanh(found).sum().backward()
    return {n: p.grad.numpy() for n, p in model.named_parameters() if p.grad is not None}


def here(fields, variables, inputs, classes):
    """The same here, by the names of variables."""
    compute = Compute(dtype=jnp.float64)

    def loss(params):
        module = models.bert(**SIZES, **fields, compute=compute)
        if classes is not None:
            outputs = Classifier(module, classes).apply({"params": params}, inputs, train=False)
            return jnp.tanh(outputs["logits"]).sum()
        found = module.apply({"params": params}, **inputs, train=False)
        if isinstance(found, tuple):
            found = found[0] * found[1][..., None]
        return jnp.tanh(found).sum()

    with jax.enable_x64(True):
        params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), variables["params"])
        return jax.tree.map(np.asarray, {"params": jax.jit(jax.grad(loss))(params)})


@pytest.mark.parametrize(
    ("config", "kind", "fields", "pairs", "classes", "of"),
    [
        (
            bert_config,
            "BertForSequenceClassification",
            {"pooler": "tanh"},
            True,
            5,
            lambda found: found.logits,
        ),
        (
            bert_config,
            "BertModel",
            {"pooler": "tanh"},
            True,
            None,
            lambda found: found.pooler_output,
        ),
        (
            distilbert_config,
            "DistilBertForSequenceClassification",
            {"types": 0, "pooler": "relu"},
            False,
            5,
            lambda found: found.logits,
        ),
        (
            distilbert_config,
            "DistilBertModel",
            {"types": 0, "pooler": None, "pool": "none"},
            False,
            None,
            lambda found: found.last_hidden_state,
        ),
    ],
    ids=["BERT classifier", "BERT", "DistilBERT classifier", "DistilBERT"],
)
def test_gradients_and_what_is_written(
    config, kind, fields, pairs, classes, of, tmp_path, record_property
):
    given = {"pairs": pairs, "classes": classes, "of": of}
    apart, account = held(tmp_path, config, kind, fields, **given)
    assert apart < TOLERANCE
    model = getattr(transformers, kind).from_pretrained(tmp_path, attn_implementation="eager")
    (tokens, lengths, second), theirs = texts(pairs)
    inputs = {"tokens": tokens, "tokens_length": lengths, **({"second": second} if pairs else {})}
    module = models.bert(**SIZES, **fields)
    variables, _ = weights.read(str(tmp_path), module, tokens, classes=classes)

    def written(variables):
        named = weights.named(module, variables)
        return weights.written(named, "hf", prefix=account.prefix)

    stored = safetensors.numpy.load_file(tmp_path / "model.safetensors")
    again = written(variables)
    assert again.keys() == stored.keys()
    for name, array in again.items():
        assert (array.dtype, array.tobytes()) == (stored[name].dtype, stored[name].tobytes())
    exact = in_torch(model.eval(), theirs, of)
    found = written(here(fields, variables, inputs, classes))
    assert exact.keys() == found.keys()
    largest = max(np.abs(leaf).max() for leaf in exact.values())
    worst = max(
        float(np.abs(found[n] - leaf).max() / max(np.abs(leaf).max(), ZERO * largest))
        for n, leaf in exact.items()
    )
    assert worst < TOLERANCE
    name = f"{kind}, three layers"
    row = {"source": "transformers", "name": name, "layout": account.layout}
    row |= {"evaluation": apart, "gradients": worst, "tensors": len(again)}
    record_property("parity", row)


def test_bert(tmp_path):
    """A pair of texts, the pooler's features."""
    apart, account = held(
        tmp_path,
        bert_config,
        "BertModel",
        {"pooler": "tanh"},
        pairs=True,
        of=lambda found: found.pooler_output,
    )
    assert apart < 1e-4
    assert account.ignored == ()


def test_bert_of_every_token(tmp_path):
    apart, _ = held(
        tmp_path,
        bert_config,
        "BertModel",
        {"pooler": None, "pool": "none"},
        of=lambda found: found.last_hidden_state,
    )
    assert apart < 1e-4


def test_bert_with_a_classifier(tmp_path):
    apart, account = held(
        tmp_path,
        bert_config,
        "BertForSequenceClassification",
        {"pooler": "tanh"},
        pairs=True,
        classes=5,
        of=lambda found: found.logits,
    )
    assert apart < 1e-4
    assert account.head == "taken"


def test_a_bert_of_masked_language_modelling(tmp_path):
    """Its head is left out, and named."""
    apart, account = held(
        tmp_path,
        bert_config,
        "BertForMaskedLM",
        {"pooler": None, "pool": "none"},
        of=lambda found: found.hidden_states[-1],
    )
    assert apart < 1e-4
    assert all(name.startswith("cls.predictions.") for name in account.ignored)


def test_distilbert(tmp_path):
    apart, account = held(
        tmp_path,
        distilbert_config,
        "DistilBertModel",
        {"types": 0, "pooler": None, "pool": "none"},
        of=lambda found: found.last_hidden_state,
    )
    assert apart < 1e-4
    assert account.ignored == ()


def test_distilbert_with_a_classifier(tmp_path):
    apart, account = held(
        tmp_path,
        distilbert_config,
        "DistilBertForSequenceClassification",
        {"types": 0, "pooler": "relu"},
        classes=5,
        of=lambda found: found.logits,
    )
    assert apart < 1e-4
    assert account.ignored == ()
    assert account.head == "taken"


def test_a_file_that_is_written_is_one_of_transformers(tmp_path):
    """What is trained here runs there: the classifier of a DistilBERT, read by transformers."""
    module = models.bert(**SIZES, types=0, pooler="relu")
    (tokens, lengths, _), theirs = texts(False)
    model = Classifier(module, 5)
    inputs = {"tokens": tokens, "tokens_length": lengths}
    variables = model.init(jax.random.key(0), inputs, train=False)
    distilbert_config().save_pretrained(tmp_path)
    weights.write(str(tmp_path / "model.safetensors"), module, variables, layout="hf")
    there = transformers.DistilBertForSequenceClassification.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        wanted = there(**theirs).logits.numpy()
    found = np.asarray(model.apply(variables, inputs, train=False)["logits"])
    assert np.abs(found - wanted).max() < 1e-4 * np.abs(wanted).max()
