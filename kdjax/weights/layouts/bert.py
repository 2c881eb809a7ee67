"""BERT and DistilBERT: names of transformers, and of what it converted from TensorFlow's checkpoints."""

import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kdjax.models import BERT
from kdjax.weights.rules import Layout, Named, Rule
from kdjax.weights.transforms import (
    dense,
    head,
    heads_in,
    heads_in_bias,
    heads_out,
    linear,
    low_rank,
    same,
)

_EMBEDDINGS = {
    "word_embeddings": "word/embedding",
    "position_embeddings": "position",
    "token_type_embeddings": "type",
}


def _norm(theirs: str, ours: str, leaves: tuple[str, str]) -> tuple[Rule, ...]:
    scale, bias = leaves
    return (
        Rule(f"{theirs}.{scale}", f"params/{ours}/scale", same),
        Rule(f"{theirs}.{bias}", f"params/{ours}/bias", same),
    )


def _rules(
    network: Named,
    *,
    block: str,
    attention: Mapping[str, str],
    mlp: Sequence[str],
    norms: Sequence[str],
    pooler: str,
    leaves: tuple[str, str] = ("weight", "bias"),
) -> tuple[Rule, ...]:
    """The rules of a network by the names of its parts, those of a block relative to it."""
    rules = [
        Rule(f"embeddings.{theirs}.weight", f"params/{ours}", same)
        for theirs, ours in _EMBEDDINGS.items()
    ]
    if "params/word_projection/kernel" in network.encoder:
        factors = tuple(f"params/{name}" for name in ("word/embedding", "word_projection/kernel"))
        rules[0] = Rule("embeddings.word_embeddings.weight", factors, low_rank())
    rules += _norm("embeddings.LayerNorm", "embedding_norm", leaves)
    for ours, theirs in attention.items():
        at, of = f"params/block{{b}}/attention/{ours}", f"{block}.{theirs}"
        is_out = ours == "out"
        rules += [
            Rule(f"{of}.weight", f"{at}/kernel", heads_out() if is_out else heads_in()),
            Rule(f"{of}.bias", f"{at}/bias", same if is_out else heads_in_bias()),
        ]
    for ours, theirs in zip(("mlp_in", "mlp_out"), mlp, strict=True):
        rules += linear(f"{block}.{theirs}", f"block{{b}}/{ours}", dense)
    for ours, theirs in zip(("attention_norm", "mlp_norm"), norms, strict=True):
        rules += _norm(f"{block}.{theirs}", f"block{{b}}/{ours}", leaves)
    return (*rules, *linear(pooler, "pooler", dense))


def _masked(
    bias: str, transform: str, norm: str, leaves: tuple[str, str] = ("weight", "bias")
) -> tuple[Rule, ...]:
    """The rules of the head that says hidden tokens; its last layer has the embeddings."""
    scale, shift = leaves
    return (
        Rule(bias, "masked_lm/bias", same),
        Rule(f"{transform}.weight", "masked_lm/dense/kernel", dense),
        Rule(f"{transform}.bias", "masked_lm/dense/bias", same),
        Rule(f"{norm}.{scale}", "masked_lm/norm/scale", same),
        Rule(f"{norm}.{shift}", "masked_lm/norm/bias", same),
    )


_masked_bert = functools.partial(
    _masked,
    "cls.predictions.bias",
    "cls.predictions.transform.dense",
    "cls.predictions.transform.LayerNorm",
)

_bert = functools.partial(
    _rules,
    block="encoder.layer.{b}",
    attention={
        **{name: f"attention.self.{name}" for name in ("query", "key", "value")},
        "out": "attention.output.dense",
    },
    mlp=("intermediate.dense", "output.dense"),
    norms=("attention.output.LayerNorm", "output.LayerNorm"),
    pooler="pooler.dense",
)

_distilbert = functools.partial(
    _rules,
    block="transformer.layer.{b}",
    attention={
        "query": "attention.q_lin",
        "key": "attention.k_lin",
        "value": "attention.v_lin",
        "out": "attention.out_lin",
    },
    mlp=("ffn.lin1", "ffn.lin2"),
    norms=("sa_layer_norm", "output_layer_norm"),
    pooler="pre_classifier",
)


_BEGIN_AT_TWO = (
    "roberta",
    "roberta-prelayernorm",
    "xlm-roberta",
    "xlm-roberta-xl",
    "camembert",
    "data2vec-text",
    "xmod",
)
"""`model_type` of networks that have the tensors of BERT, and number the tokens from the padding on."""


def _unlike(
    module: BERT,
    said: Mapping[str, Any],
    architecture: str | None,
    *,
    heads: str,
    activation: str,
    epsilon: str | None,
    pooler: str,
) -> Iterable[tuple[str, str, str]]:
    """What config.json says that no tensor shows, and the module has otherwise."""
    if heads in said and said[heads] != module.heads:
        yield "heads", f"{module.heads}, and the weights have {said[heads]}", f"give {said[heads]}"
    if said.get(activation, "gelu") != "gelu":
        yield "name", f"its blocks have GELU, and the weights {said[activation]}", "take another"
    if (kind := said.get("model_type")) in _BEGIN_AT_TWO:
        yield "name", f"its positions begin at 0, and those of {kind} at 2", "take another"
    if said.get("position_embedding_type", "absolute") != "absolute":
        yield "name", "its positions are absolute, and those of the weights are not", "take another"
    theirs = 1e-12 if epsilon is None else said.get(epsilon)
    if theirs is not None and said and abs(theirs - module.epsilon) > 1e-3 * theirs:
        yield "epsilon", f"{module.epsilon}, and the weights have {theirs}", f"give {theirs}"
    if module.pooler not in (None, pooler):
        yield "pooler", f"{module.pooler}, and behind the weights' is {pooler}", f"give {pooler}"


_unlike_bert = functools.partial(
    _unlike,
    heads="num_attention_heads",
    activation="hidden_act",
    epsilon="layer_norm_eps",
    pooler="tanh",
)
_unlike_distilbert = functools.partial(
    _unlike, heads="n_heads", activation="activation", epsilon=None, pooler="relu"
)


def _ignored(*names: str) -> tuple[str, ...]:
    """Patterns of whole names with whatever stands before these."""
    return tuple(rf"(.*\.)?{name}" for name in names)


_POSITIONS = r"position_ids"
"""0, 1, 2 and so on, which transformers once saved."""

_PRETRAINING = (r"cls\.predictions\..*", r"cls\.seq_relationship\..*")
"""Heads of BERT's pretraining; an encoder alone has no use for them."""

_BERT = {
    "family": "BERT",
    "of": BERT,
    "prefix": "bert.",
    "counters": False,
    "misfits": _unlike_bert,
    "which": lambda module: module.types > 0,
    # Sentence encoders take the mean, and published files have a pooler all the same.
    "ignored": _ignored(_POSITIONS, r"pooler\.dense\.(weight|bias)", *_PRETRAINING),
}

LAYOUTS = (
    Layout(
        **_BERT,
        names=("hf",),
        rules=_bert,
        head=(*head("classifier"), *_masked_bert()),
        marks=(
            r"embeddings\.token_type_embeddings\.weight",
            r"encoder\.layer\.0\.attention\.self\.query\.weight",
            r"embeddings\.LayerNorm\.weight",
        ),
    ),
    Layout(
        **_BERT,
        names=("hf_gamma",),
        rules=functools.partial(_bert, leaves=("gamma", "beta")),
        head=(*head("classifier"), *_masked_bert(("gamma", "beta"))),
        marks=(
            r"encoder\.layer\.0\.attention\.self\.query\.weight",
            r"embeddings\.LayerNorm\.gamma",
        ),
    ),
    Layout(
        names=("hf",),
        family="DistilBERT",
        of=BERT,
        which=lambda module: module.types == 0,
        rules=_distilbert,
        misfits=_unlike_distilbert,
        head=(
            *head("classifier"),
            *_masked("vocab_projector.bias", "vocab_transform", "vocab_layer_norm"),
        ),
        outside=(r"pre_classifier\..*",),
        marks=(
            r"embeddings\.word_embeddings\.weight",
            r"transformer\.layer\.0\.attention\.q_lin\.weight",
        ),
        ignored=_ignored(
            _POSITIONS,
            r"pre_classifier\.(weight|bias)",
            r"vocab_(transform|layer_norm|projector)\.(weight|bias)",
        ),
        prefix="distilbert.",
        counters=False,
    ),
)
