"""ResNets of torchvision, timm and transformers give here what they give there."""

import pytest

from kdjax import models

pytest.importorskip("torch", reason="torch is not installed (extra: parity)")

from tests.weights import in_torch

pytestmark = pytest.mark.thorough


@pytest.mark.parametrize(
    ("name", "encoder"),
    [("resnet18", models.resnet18), ("resnet50", models.resnet50)],
)
def test_torchvision(name, encoder, tmp_path):
    torchvision = pytest.importorskip("torchvision.models", reason="torchvision is not installed")
    theirs = torchvision.get_model(name, weights=None, num_classes=7)
    in_torch.agrees(theirs, encoder(imagenet_stem=True), tmp_path / "x.safetensors", classes=7)


@pytest.mark.parametrize(
    ("name", "encoder"),
    [("resnet18", models.resnet18), ("resnet50", models.resnet50)],
)
def test_timm(name, encoder, tmp_path):
    timm = pytest.importorskip("timm", reason="timm is not installed")
    theirs = timm.create_model(name, pretrained=False, num_classes=7)
    path = tmp_path / "x.safetensors"
    found = in_torch.agrees(theirs, encoder(imagenet_stem=True), path, classes=7, layout="timm")
    assert found.layout.name == "torchvision"


@pytest.mark.parametrize(
    ("kind", "depths", "sizes", "encoder"),
    [
        ("basic", [2, 2, 2, 2], [64, 128, 256, 512], models.resnet18),
        ("bottleneck", [3, 4, 6, 3], [256, 512, 1024, 2048], models.resnet50),
    ],
)
def test_transformers(kind, depths, sizes, encoder, tmp_path):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    config = transformers.ResNetConfig(
        layer_type=kind, depths=depths, hidden_sizes=sizes, num_labels=7
    )
    theirs = transformers.ResNetForImageClassification(config)
    path = tmp_path / "x.safetensors"
    found = in_torch.agrees(theirs, encoder(imagenet_stem=True), path, classes=7)
    assert found.layout.name == "hf"
