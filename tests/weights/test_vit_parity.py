"""Vision transformers as timm, DINO, DINOv2, torchvision and transformers have them."""

import functools

import pytest

from tests.weights.parity import Pair, needed, randomised

torch, timm, torchvision = needed("torch", "timm", "torchvision")

SIZES = {"width": 16, "depth": 2, "heads": 2, "mlp": 64, "patch": 8}
PUBLISHED = {"name": "vit_tiny", **SIZES}
SCALED = {**PUBLISHED, "layer_scale": 1e-5}

pytestmark = pytest.mark.thorough

TIMM = {
    "class token": ({}, {}),
    "mean": (
        {"global_pool": "avg"},
        {"pool": "mean", "norm_after_pool": True},
    ),
    "mean, no class token": (
        {"global_pool": "avg", "class_token": False},
        {"class_token": False, "pool": "mean", "positions": "patches", "norm_after_pool": True},
    ),
    "mean of normalised tokens": (
        {"global_pool": "avg", "fc_norm": False},
        {"pool": "mean"},
    ),
    "registers and layer scale": (
        {"reg_tokens": 4, "no_embed_class": True, "init_values": 1e-5},
        {"registers": 4, "positions": "patches", "layer_scale": 1e-5},
    ),
    "registers with positions": ({"reg_tokens": 3}, {"registers": 3, "positions": "all"}),
    "no bias": ({"qkv_bias": False}, {"qkv_bias": False}),
}


@pytest.mark.parametrize("what", TIMM)
def test_timm(what, held, tmp_path):
    from timm.models.vision_transformer import VisionTransformer

    theirs, ours = TIMM[what]
    model = VisionTransformer(
        img_size=24, patch_size=8, embed_dim=16, depth=2, num_heads=2, num_classes=10, **theirs
    )
    pair = Pair(randomised(model), {**PUBLISHED, **ours}, tmp_path, layout="timm")
    held("timm", f"ViT: {what}", pair)


@pytest.mark.parametrize("name", ["tiny", "small", "base"])
def test_as_published(name, held, tmp_path):
    model = timm.create_model(f"vit_{name}_patch16_224", num_classes=10, img_size=32)
    pair = Pair(randomised(model), {"name": f"vit_{name}"}, tmp_path, side=32)
    assert pair.mapped.account.layout == "timm"
    held("timm", f"vit_{name}_patch16_224", pair)


def test_dino(held, tmp_path):
    """ViT-S/16 without a classifier, whose file has timm's names."""
    model = timm.create_model("vit_small_patch16_224.dino", pretrained=False, img_size=32)
    for layout in ("timm", "dino"):
        pair = Pair(
            randomised(model),
            {"name": "vit_small"},
            tmp_path,
            side=32,
            classes=None,
            layout=layout,
        )
        held("timm", f"vit_small_patch16_224.dino, as {layout}", pair)


def test_dinov2_with_registers_as_published(held, tmp_path):
    name = "vit_small_patch14_reg4_dinov2.lvd142m"
    model = timm.create_model(name, pretrained=False, img_size=28)
    fields = {
        "name": "vit_small",
        "patch": 14,
        "registers": 4,
        "positions": "patches",
        "layer_scale": 1e-5,
    }
    pair = Pair(randomised(model), fields, tmp_path, side=28, classes=None)
    assert pair.mapped.account.layout == "timm"
    held("timm", name, pair)


def test_torchvision(held, tmp_path):
    model = torchvision.models.VisionTransformer(
        image_size=24,
        patch_size=8,
        num_layers=2,
        num_heads=2,
        hidden_dim=16,
        mlp_dim=64,
        num_classes=10,
    )
    pair = Pair(randomised(model), PUBLISHED, tmp_path)
    assert pair.mapped.account.layout == "torchvision"
    held("torchvision", "ViT", pair)


def _transformers(family, head, **fields):
    transformers = pytest.importorskip("transformers")
    # Its eager attention rounds to float32, whatever the network computes in.
    c = getattr(transformers, f"{family}Config")(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=24,
        patch_size=8,
        num_labels=10,
        attn_implementation="sdpa",
        **fields,
    )
    return getattr(transformers, f"{family}{head}")(c)


def _saved(folder, model):
    """Names and tensors of the file that transformers itself writes, which are those published."""
    from safetensors.numpy import load_file

    model.float().save_pretrained(folder)
    return load_file(folder / "model.safetensors")


HF = {
    "ViT": ({"intermediate_size": 64}, {**PUBLISHED, "epsilon": 1e-12}),
    "Dinov2": ({"mlp_ratio": 4}, {**SCALED, "pool": "class_and_mean"}),
    "Dinov2WithRegisters": (
        {"mlp_ratio": 4, "num_register_tokens": 3},
        {**SCALED, "registers": 3, "pool": "class_and_mean"},
    ),
}


@pytest.mark.parametrize("family", HF)
def test_transformers(family, held, tmp_path):
    theirs, ours = HF[family]
    model = randomised(_transformers(family, "ForImageClassification", **theirs))
    pair = Pair(
        model,
        ours,
        tmp_path,
        logits=lambda found: found.logits,
        state=functools.partial(_saved, tmp_path / "saved"),
    )
    assert pair.mapped.account.layout == "hf"
    held("transformers", family, pair)


@pytest.mark.parametrize("family", HF)
def test_transformers_without_a_classifier(family, held, tmp_path):
    """DINO's are such a ViT; its pooler, which nobody trained, is ignored."""
    theirs, ours = HF[family]
    model = randomised(_transformers(family, "Model", **theirs))
    pair = Pair(
        model,
        {**ours, "pool": "class"},
        tmp_path,
        classes=None,
        logits=lambda found: found.last_hidden_state[:, 0],
        state=functools.partial(_saved, tmp_path / "saved"),
    )
    assert pair.mapped.account.layout == "hf"
    held("transformers", f"{family}, without a classifier", pair)
