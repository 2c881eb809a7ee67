"""ModernBERT: names of transformers."""

from collections.abc import Iterable, Mapping
from typing import Any

from kdjax.models import ModernBERT
from kdjax.weights.rules import Layout, Named, Rule
from kdjax.weights.transforms import dense, fused, heads_in, heads_out, same


def _rules(network: Named) -> tuple[Rule, ...]:
    at, of = "params/block{b}", "layers.{b}"
    qkv = tuple(f"{at}/attention/{name}/kernel" for name in ("query", "key", "value"))
    return (
        Rule("embeddings.tok_embeddings.weight", "params/word/embedding", same),
        Rule("embeddings.norm.weight", "params/embedding_norm/scale", same),
        Rule(f"{of}.attn_norm.weight", f"{at}/attention_norm/scale", same),
        Rule(f"{of}.attn.Wqkv.weight", qkv, fused(heads_in())),
        Rule(f"{of}.attn.Wo.weight", f"{at}/attention/out/kernel", heads_out()),
        Rule(f"{of}.mlp_norm.weight", f"{at}/mlp_norm/scale", same),
        Rule(
            f"{of}.mlp.Wi.weight",
            (f"{at}/mlp_in/kernel", f"{at}/mlp_gate/kernel"),
            fused(dense),
        ),
        Rule(f"{of}.mlp.Wo.weight", f"{at}/mlp_out/kernel", dense),
        Rule("final_norm.weight", "params/final_norm/scale", same),
    )


_SAID = {
    "num_attention_heads": "heads",
    "local_attention": "window",
    "global_attn_every_n_layers": "whole_every",
    "global_rope_theta": "theta",
    "local_rope_theta": "window_theta",
}
"""What config.json says that no tensor shows, by its names."""


def _unlike(
    module: ModernBERT, said: Mapping[str, Any], architecture: str | None
) -> Iterable[tuple[str, str, str]]:
    for theirs, ours in _SAID.items():
        own = getattr(module, ours)
        if theirs in said and said[theirs] != own:
            yield ours, f"{own:g}, and the weights have {said[theirs]}", f"give {said[theirs]}"
    rotations = said.get("rope_parameters") or {}
    for kind, ours in (("full_attention", "theta"), ("sliding_attention", "window_theta")):
        theta = (rotations.get(kind) or {}).get("rope_theta")
        if theta is not None and theta != getattr(module, ours):
            yield ours, f"{getattr(module, ours):g}, and the weights have {theta}", f"give {theta}"
    epsilon = said.get("norm_eps")
    if epsilon is not None and abs(epsilon - module.epsilon) > 1e-3 * epsilon:
        yield "epsilon", f"{module.epsilon}, and the weights have {epsilon}", f"give {epsilon}"
    for name in ("attention_bias", "mlp_bias", "norm_bias"):
        if said.get(name):
            yield "name", f"it has no biases, and the weights say {name}", "take another"
    if said.get("hidden_activation", "gelu") != "gelu":
        yield "name", f"its blocks have GELU, and the weights {said['hidden_activation']}", ""


LAYOUTS = (
    Layout(
        names=("hf",),
        family="ModernBERT",
        of=ModernBERT,
        rules=_rules,
        misfits=_unlike,
        head=(
            Rule("decoder.bias", "masked_lm/bias", same),
            Rule("head.dense.weight", "masked_lm/dense/kernel", dense),
            Rule("head.norm.weight", "masked_lm/norm/scale", same),
            Rule("classifier.weight", "kernel", dense),
            Rule("classifier.bias", "bias", same),
        ),
        marks=(
            r"embeddings\.tok_embeddings\.weight",
            r"layers\.0\.attn\.Wqkv\.weight",
        ),
        # The last layer of the head has the embeddings; an encoder alone has no use for a head.
        ignored=(r"decoder\.(weight|bias)", r"head\.(dense|norm)\.weight"),
        prefix="model.",
        counters=False,
    ),
)
