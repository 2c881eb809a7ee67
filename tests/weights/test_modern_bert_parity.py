"""Masked language models as transformers has them: random weights through its files, equal outputs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import config, parse, tasks, weights
from kdjax.artifacts import tensors
from kdjax.artifacts.model import Spec
from kdjax.inputs import Inputs
from kdjax.types import Field, length_field
from tests.weights.parity import TOLERANCE, needed, randomised

torch, transformers = needed("torch", "transformers")

pytestmark = pytest.mark.thorough

VOCAB, MOST = 40, 16
KINDS = {
    "ModernBertForMaskedLM": (
        {
            "name": "modernbert",
            "width": 32,
            "depth": 4,
            "heads": 4,
            "mlp": 48,
            "window": 4,
            "theta": 500.0,
            "window_theta": 60.0,
        },
        lambda: transformers.ModernBertConfig(
            vocab_size=VOCAB,
            hidden_size=32,
            num_hidden_layers=4,
            num_attention_heads=4,
            intermediate_size=48,
            local_attention=4,
            global_rope_theta=500.0,
            local_rope_theta=60.0,
            max_position_embeddings=MOST,
            pad_token_id=0,
            attn_implementation="eager",
        ),
    ),
    "BertForMaskedLM": (
        {"name": "bert", "width": 32, "depth": 3, "heads": 4, "mlp": 64, "pooler": None},
        lambda: transformers.BertConfig(
            vocab_size=VOCAB,
            hidden_size=32,
            num_hidden_layers=3,
            num_attention_heads=4,
            intermediate_size=64,
            max_position_embeddings=MOST,
            attn_implementation="eager",
        ),
    ),
    "DistilBertForMaskedLM": (
        {"name": "distilbert", "width": 32, "depth": 3, "heads": 4, "mlp": 64},
        lambda: transformers.DistilBertConfig(
            vocab_size=VOCAB,
            dim=32,
            n_layers=3,
            n_heads=4,
            hidden_dim=64,
            max_position_embeddings=MOST,
            attn_implementation="eager",
        ),
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_said_of_each_token(kind, tmp_path):
    encoder, made = KINDS[kind]
    model = randomised(getattr(transformers, kind)(made())).eval()
    model.save_pretrained(tmp_path)
    random = np.random.default_rng(0)
    lengths = random.integers(6, MOST + 1, 6)
    tokens = random.integers(1, VOCAB, (6, MOST))
    tokens[np.arange(MOST) >= lengths[:, None]] = 0
    inside = np.arange(MOST) < lengths[:, None]
    with torch.no_grad():
        theirs = model(
            input_ids=torch.from_numpy(tokens),
            attention_mask=torch.from_numpy(inside.astype(np.int64)),
        ).logits.numpy()
    spec = Spec(
        encoder=parse.parse(config.Encoder, {**encoder, "pool": "none", "positions": MOST}),
        inputs=Inputs.of(
            {
                "tokens": Field((MOST,), "int32", VOCAB, ragged=True, mask=4),
                "tokens_length": length_field(MOST),
            }
        ),
        task=tasks.MaskedLM(classes=VOCAB, positions=MOST, mask=4),
    )
    found = weights.mapped(weights.published(str(tmp_path)), tensors.named(spec, spec.abstract()))
    assert found.account.layout == "hf"
    assert found.account.head == "taken"
    assert found.account.matched + len(found.account.ignored) == found.account.tensors
    variables = tensors.put(spec.init(jax.random.key(0)), *found.read())
    given = {
        "tokens": jnp.asarray(tokens, jnp.int32),
        "tokens_length": jnp.asarray(lengths, jnp.int32),
    }
    ours = np.asarray(spec.module().apply(variables, given, train=False)["logits"])
    assert np.abs(theirs[inside]).max() > 0.1
    apart = np.abs(ours - theirs)[inside].max() / np.abs(theirs[inside]).max()
    assert apart < TOLERANCE
