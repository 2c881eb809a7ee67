"""Vision transformers: names of timm, DINO, DINOv2, torchvision and transformers."""

from collections.abc import Sequence

from kdjax.models import ViT
from kdjax.weights.positions import positions
from kdjax.weights.preprocessing import Preprocessing
from kdjax.weights.rules import Layout, Named, Rule
from kdjax.weights.transforms import (
    conv,
    fused,
    head,
    heads_in,
    heads_in_bias,
    heads_out,
    layer_norm,
    linear,
    same,
)

_QKV = ("query", "key", "value")
_HALF = (0.5, 0.5, 0.5)


def _vit(network: Named) -> ViT:
    module = network.module
    assert isinstance(module, ViT)  # see `Layout.of`
    return module


def _is_plain(module: ViT) -> bool:
    """Whether it has neither a layer scale nor registers, as the first ViTs."""
    return module.layer_scale is None and not module.registers


def _is_dinov2(module: ViT) -> bool:
    """Whether its blocks have a layer scale, and its class token a position, as those of DINOv2."""
    return module.layer_scale is not None and module.positions == "class"


def _has_place_of_class(module: ViT) -> bool:
    """Whether the class token has a position, and registers have none."""
    return module.positions == "class"


def _tokens(
    network: Named,
    *,
    token: str,
    registers: str,
    place: str,
    patches: str,
    antialias: bool,
    offset: float = 0.0,
) -> tuple[Rule, ...]:
    """What comes before the blocks, by the names of the class token, registers, positions and patches."""
    module = _vit(network)
    placed = {"patches": 0, "class": 1, "all": module.beside_patches}[module.positions]
    height, width = network.size or (0, 0)
    grid = (height // module.patch, width // module.patch) if network.size else None
    moved = positions(before=placed, grid=grid, antialias=antialias, offset=offset)
    return (
        Rule(token, "params/class_embedding", same),
        Rule(registers, "params/register_embeddings", same),
        Rule(place, "params/position", moved),
        *linear(patches, "patches", conv),
    )


def _out(theirs: str, network: Named) -> tuple[Rule, ...]:
    """What comes out of the attention; its bias is the block's where there is no `qkv_bias`."""
    bias = "attention/out/bias" if _vit(network).qkv_bias else "attention_bias"
    return (
        Rule(f"{theirs}.weight", "params/block{b}/attention/out/kernel", heads_out()),
        Rule(f"{theirs}.bias", f"params/block{{b}}/{bias}", same),
    )


def _apart(names: Sequence[str]) -> tuple[Rule, ...]:
    """Queries, keys and values of a name each."""
    found: tuple[Rule, ...] = ()
    for own, theirs in zip(_QKV, names, strict=True):
        at = f"params/block{{b}}/attention/{own}"
        found += (
            Rule(f"{theirs}.weight", f"{at}/kernel", heads_in()),
            Rule(f"{theirs}.bias", f"{at}/bias", heads_in_bias()),
        )
    return found


def _together(weight: str, bias: str) -> tuple[Rule, ...]:
    """Queries, keys and values in one tensor, one after another."""
    at = "params/block{b}/attention"
    kernels, biases = ([f"{at}/{name}/{leaf}" for name in _QKV] for leaf in ("kernel", "bias"))
    return (
        Rule(weight, kernels, fused(heads_in())),
        Rule(bias, biases, fused(heads_in_bias())),
    )


def _norms_and_mlp(norms: Sequence[str], dense: Sequence[str]) -> tuple[Rule, ...]:
    """The two LayerNorms of a block and the two dense layers of its MLP."""
    rules: tuple[Rule, ...] = ()
    for own, theirs in zip(("attention_norm", "mlp_norm"), norms, strict=True):
        rules += layer_norm(theirs, f"block{{b}}/{own}")
    for own, theirs in zip(("mlp_in", "mlp_out"), dense, strict=True):
        rules += linear(theirs, f"block{{b}}/{own}")
    return rules


def _timm(
    network: Named, *, registers: str = "reg_token", offset: float = 0.0, antialias: bool = True
) -> tuple[Rule, ...]:
    """`blocks.0.attn.qkv`."""
    at = "blocks.{b}"
    return (
        *_tokens(
            network,
            token="cls_token",
            registers=registers,
            place="pos_embed",
            patches="patch_embed.proj",
            antialias=antialias,
            offset=offset,
        ),
        *_together(f"{at}.attn.qkv.weight", f"{at}.attn.qkv.bias"),
        *_out(f"{at}.attn.proj", network),
        *_norms_and_mlp([f"{at}.norm1", f"{at}.norm2"], [f"{at}.mlp.fc1", f"{at}.mlp.fc2"]),
        Rule(f"{at}.ls1.gamma", "params/block{b}/attention_scale", same),
        Rule(f"{at}.ls2.gamma", "params/block{b}/mlp_scale", same),
        *layer_norm("fc_norm" if _vit(network).norm_after_pool else "norm", "norm"),
    )


def _dino(network: Named) -> tuple[Rule, ...]:
    """Names as of timm; positions are interpolated otherwise."""
    return _timm(network, antialias=False, offset=0.1)


def _dinov2(network: Named) -> tuple[Rule, ...]:
    """Names as of timm but for the registers; where there are registers, positions are smoothed."""
    has = bool(_vit(network).registers)
    return _timm(network, registers="register_tokens", antialias=has, offset=0.0 if has else 0.1)


def _torchvision(network: Named) -> tuple[Rule, ...]:
    """`encoder.layers.encoder_layer_0.self_attention.in_proj_weight`."""
    at = "encoder.layers.encoder_layer_{b}"
    attention = f"{at}.self_attention"
    return (
        *_tokens(
            network,
            token="class_token",
            registers="register_tokens",
            place="encoder.pos_embedding",
            patches="conv_proj",
            antialias=False,
        ),
        *_together(f"{attention}.in_proj_weight", f"{attention}.in_proj_bias"),
        *_out(f"{attention}.out_proj", network),
        *_norms_and_mlp([f"{at}.ln_1", f"{at}.ln_2"], [f"{at}.mlp.0", f"{at}.mlp.3"]),
        *layer_norm("encoder.ln", "norm"),
    )


def _transformers(
    network: Named, norms: Sequence[str], dense: Sequence[str], *, antialias: bool
) -> tuple[Rule, ...]:
    """`encoder.layer.0.attention.attention.query`."""
    at = "encoder.layer.{b}"
    return (
        *_tokens(
            network,
            token="embeddings.cls_token",
            registers="embeddings.register_tokens",
            place="embeddings.position_embeddings",
            patches="embeddings.patch_embeddings.projection",
            antialias=antialias,
        ),
        *_apart([f"{at}.attention.attention.{name}" for name in _QKV]),
        *_out(f"{at}.attention.output.dense", network),
        *_norms_and_mlp([f"{at}.{name}" for name in norms], [f"{at}.{name}" for name in dense]),
        Rule(f"{at}.layer_scale1.lambda1", "params/block{b}/attention_scale", same),
        Rule(f"{at}.layer_scale2.lambda1", "params/block{b}/mlp_scale", same),
        *layer_norm("layernorm", "norm"),
    )


def _transformers_vit(network: Named) -> tuple[Rule, ...]:
    norms, dense = ("layernorm_before", "layernorm_after"), ("intermediate.dense", "output.dense")
    return _transformers(network, norms, dense, antialias=False)


def _transformers_dinov2(network: Named) -> tuple[Rule, ...]:
    has = bool(_vit(network).registers)
    return _transformers(network, ("norm1", "norm2"), ("mlp.fc1", "mlp.fc2"), antialias=has)


_POOLER = r"(.*\.)?pooler\.dense\.(weight|bias)"
"""Of transformers' models without a classifier: a layer that no published ViT was trained with."""

_MASK = r"(.*\.)?mask_token"
"""In the place of hidden patches while DINOv2 was trained."""

_TORCHVISION = Preprocessing(size=(224, 224), crop=0.875)
_BICUBIC = Preprocessing(interpolation="bicubic")

LAYOUTS = (
    Layout(
        names=("timm",),
        family="ViT",
        of=ViT,
        rules=_timm,
        head=head("head"),
        marks=(r"patch_embed\.proj\.weight", r"blocks\.0\.attn\.qkv\.weight"),
        ignored=(_MASK,),
        counters=False,
        preprocessing=Preprocessing(crop=0.9, interpolation="bicubic", mean=_HALF, std=_HALF),
    ),
    Layout(
        names=("dino",),
        family="ViT",
        of=ViT,
        which=_is_plain,
        rules=_dino,
        head=head("head"),
        ignored=(),
        counters=False,
        preprocessing=_BICUBIC,
    ),
    Layout(
        names=("dinov2",),
        family="DINOv2 ViT",
        of=ViT,
        which=_is_dinov2,
        rules=_dinov2,
        head=head("head"),
        marks=(r"patch_embed\.proj\.weight", r"mask_token", r"blocks\.0\.ls1\.gamma"),
        ignored=(_MASK,),
        counters=False,
        preprocessing=_BICUBIC,
    ),
    Layout(
        names=("torchvision",),
        family="ViT",
        of=ViT,
        which=lambda module: _is_plain(module) and _has_place_of_class(module),
        rules=_torchvision,
        head=head("heads.head"),
        marks=(r"conv_proj\.weight", r"encoder\.pos_embedding"),
        ignored=(),
        counters=False,
        preprocessing=_TORCHVISION,
    ),
    Layout(
        names=("hf",),
        family="ViT",
        of=ViT,
        which=lambda module: _is_plain(module) and _has_place_of_class(module),
        rules=_transformers_vit,
        head=head("classifier"),
        marks=(
            r"embeddings\.cls_token",
            r"encoder\.layer\.0\.attention\.attention\.query\.weight",
            r"encoder\.layer\.0\.layernorm_before\.weight",
        ),
        ignored=(_POOLER,),
        prefix="vit.",
        counters=False,
        preprocessing=Preprocessing(crop=1.0, mean=_HALF, std=_HALF, squash=True),
    ),
    Layout(
        names=("hf",),
        family="DINOv2 ViT",
        of=ViT,
        which=lambda module: _is_dinov2(module) and module.registers == 0,
        rules=_transformers_dinov2,
        head=head("classifier"),
        marks=(r"embeddings\.cls_token", r"encoder\.layer\.0\.layer_scale1\.lambda1"),
        ignored=(_MASK,),
        prefix="dinov2.",
        counters=False,
        preprocessing=_BICUBIC,
    ),
    Layout(
        names=("hf",),
        family="DINOv2 ViT with registers",
        of=ViT,
        which=lambda module: _is_dinov2(module) and module.registers > 0,
        rules=_transformers_dinov2,
        head=head("classifier"),
        marks=(r"embeddings\.register_tokens", r"encoder\.layer\.0\.layer_scale1\.lambda1"),
        ignored=(_MASK,),
        prefix="dinov2_with_registers.",
        counters=False,
        preprocessing=_BICUBIC,
    ),
)
