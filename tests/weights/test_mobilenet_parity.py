"""MobileNets and EfficientNets as timm, torchvision, transformers and a package of Lite0 have them."""

import importlib.util

import pytest

from tests.weights.parity import Pair, needed, randomised, still

torch, timm, torchvision = needed("torch", "timm", "torchvision")

V2 = {"name": "mobilenet_v2", "imagenet_stem": True}
V3 = {"name": "mobilenet_v3", "imagenet_stem": True}
B0 = {"name": "efficientnet_b0", "imagenet_stem": True}
LITE = {"name": "efficientnet_lite0", "imagenet_stem": True}
TF = {"epsilon": 1e-3, "padding": "same"}

TIMM = {
    "mobilenetv2_100": V2,
    "mobilenetv3_small_100": {**V3, "size": "small"},
    "mobilenetv3_large_100": {**V3, "size": "large"},
    "tf_mobilenetv3_small_100": {**V3, "size": "small", **TF},
    "efficientnet_b0": B0,
    "tf_efficientnet_b0": {**B0, **TF},
    "efficientnet_lite0": LITE,
    "tf_efficientnet_lite0": {**LITE, **TF},
    "tf_efficientnet_lite1": {**LITE, **TF, "name": "efficientnet_lite1"},
    "tf_efficientnet_lite2": {**LITE, **TF, "name": "efficientnet_lite2"},
}
TORCHVISION = {
    "mobilenet_v2": V2,
    "mobilenet_v3_small": {**V3, "size": "small", "epsilon": 1e-3},
    "mobilenet_v3_large": {**V3, "size": "large", "epsilon": 1e-3},
    "efficientnet_b0": B0,
}


@pytest.mark.thorough
@pytest.mark.parametrize("name", TIMM)
def test_timm(name, held, tmp_path):
    model = timm.create_model(name, num_classes=10, drop_rate=0.0, drop_path_rate=0.0)
    pair = Pair(randomised(still(model)), TIMM[name], tmp_path)
    assert pair.mapped.account.layout == "timm"
    held("timm", name, pair)


@pytest.mark.thorough
@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvision(name, held, tmp_path):
    model = torchvision.models.get_model(name, num_classes=10)
    pair = Pair(randomised(still(model)), TORCHVISION[name], tmp_path)
    assert pair.mapped.account.layout == "torchvision"
    held("torchvision", name, pair)


@pytest.mark.thorough
def test_transformers(held, tmp_path):
    transformers = pytest.importorskip("transformers")
    from safetensors.numpy import load_file

    c = transformers.MobileNetV2Config(num_labels=10, classifier_dropout_prob=0.0)
    model = randomised(still(transformers.MobileNetV2ForImageClassification(c)))
    pair = Pair(model, {**V2, **TF}, tmp_path, logits=lambda found: found.logits)
    assert pair.mapped.account.layout == "hf"
    model.save_pretrained(tmp_path / "saved")
    saved = load_file(tmp_path / "saved" / "model.safetensors")
    assert sorted(saved) == sorted(pair.state)
    held("transformers", "MobileNetV2", pair)


@pytest.mark.thorough
@pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite_pytorch") is None,
    reason="needs the package efficientnet_lite_pytorch",
)
def test_efficientnet_lite_pytorch(held, tmp_path):
    from efficientnet_lite_pytorch import EfficientNet

    model = EfficientNet.from_name(
        "efficientnet-lite0",
        num_classes=10,
        dropout_rate=0.0,
        drop_connect_rate=0.0,
        image_size=64,  # by which it pads
    )
    pair = Pair(randomised(still(model)), {**LITE, **TF}, tmp_path, side=64)
    assert pair.mapped.account.layout == "efficientnet_pytorch"
    held("efficientnet_lite_pytorch", "efficientnet-lite0", pair)
