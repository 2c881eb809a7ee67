"""ResNets and SE-ResNets as torchvision, timm and transformers have them."""

import pytest

from tests.weights.parity import Pair, needed, randomised, still

torch, timm, torchvision = needed("torch", "timm", "torchvision")

pytestmark = pytest.mark.thorough

STEM = {"imagenet_stem": True}
RESNETS = ("resnet18", "resnet34", "resnet50")


@pytest.mark.parametrize("name", RESNETS)
def test_torchvision(name, held, tmp_path):
    model = randomised(torchvision.models.get_model(name, num_classes=10))
    pair = Pair(model, {"name": name, **STEM}, tmp_path, side=32)
    assert pair.mapped.account.layout == "torchvision"
    held("torchvision", name, pair)


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_gradients_in_float32(name, tmp_path):
    model = randomised(torchvision.models.get_model(name, num_classes=10))
    Pair(model, {"name": name, **STEM}, tmp_path, side=64).assert_no_more_rounding()


@pytest.mark.parametrize("name", RESNETS)
def test_timm(name, held, tmp_path):
    model = randomised(still(timm.create_model(name, num_classes=10)))
    pair = Pair(model, {"name": name, **STEM}, tmp_path, side=32, layout="timm")
    assert pair.mapped.account.layout == "torchvision"  # the names are the same
    held("timm", name, pair)


@pytest.mark.parametrize("depth", [18, 34, 50])
@pytest.mark.parametrize("legacy", [False, True], ids=["plain", "legacy"])
def test_se_resnets_of_timm(depth, legacy, held, tmp_path):
    name = f"{'legacy_' if legacy else ''}seresnet{depth}"
    model = randomised(still(timm.create_model(name, num_classes=10)))
    fields = {"name": "se_resnet", "depth": depth, "caffe": legacy, **STEM}
    pair = Pair(model, fields, tmp_path, side=32)
    assert pair.mapped.account.layout == ("timm_legacy" if legacy else "torchvision")
    held("timm", name, pair)


@pytest.mark.parametrize(
    ("name", "kind", "depths", "sizes"),
    [
        ("resnet18", "basic", [2, 2, 2, 2], [64, 128, 256, 512]),
        ("resnet50", "bottleneck", [3, 4, 6, 3], [256, 512, 1024, 2048]),
    ],
)
def test_transformers(name, kind, depths, sizes, held, tmp_path):
    transformers = pytest.importorskip("transformers")
    c = transformers.ResNetConfig(layer_type=kind, depths=depths, hidden_sizes=sizes, num_labels=10)
    model = randomised(transformers.ResNetForImageClassification(c))
    pair = Pair(model, {"name": name, **STEM}, tmp_path, side=32, logits=lambda found: found.logits)
    assert pair.mapped.account.layout == "hf"
    held("transformers", f"ResNet, as {name}", pair)
