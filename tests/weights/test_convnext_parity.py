"""ConvNeXts as timm, torchvision and transformers have them."""

import pytest

from tests.weights.parity import Pair, needed, randomised

torch, timm, torchvision = needed("torch", "timm", "torchvision")

SMALL = {"name": "convnext", "depths": [1, 2, 1], "widths": [8, 12, 16]}

pytestmark = pytest.mark.thorough


@pytest.mark.parametrize("conv_mlp", [False, True], ids=["dense", "conv"])
def test_timm(conv_mlp, held, tmp_path):
    from timm.models.convnext import ConvNeXt

    # What is written has the kind of layers that the published ones of this width have.
    widths = [8, 12, 16, 16] if conv_mlp else [96, 12, 16, 16]
    model = ConvNeXt(depths=(1, 1, 2, 1), dims=widths, num_classes=10, conv_mlp=conv_mlp)
    fields = {"name": "convnext", "depths": [1, 1, 2, 1], "widths": widths}
    pair = Pair(randomised(model), fields, tmp_path, side=36)
    assert pair.mapped.account.layout == "timm"
    held("timm", f"ConvNeXt of blocks 1, 1, 2, 1, {'convolutions' if conv_mlp else 'dense'}", pair)


def test_timm_as_published(held, tmp_path):
    model = timm.create_model("convnext_tiny", num_classes=10)
    pair = Pair(randomised(model), {"name": "convnext"}, tmp_path, side=36)
    held("timm", "convnext_tiny", pair)


def test_torchvision(held, tmp_path):
    from torchvision.models.convnext import CNBlockConfig, ConvNeXt

    model = ConvNeXt(
        [CNBlockConfig(8, 12, 1), CNBlockConfig(12, 16, 2), CNBlockConfig(16, None, 1)],
        num_classes=10,
        stochastic_depth_prob=0.0,
    )
    pair = Pair(randomised(model), SMALL, tmp_path, side=36)
    assert pair.mapped.account.layout == "torchvision"
    held("torchvision", "ConvNeXt of blocks 1, 2, 1", pair)


def test_transformers(held, tmp_path):
    transformers = pytest.importorskip("transformers")
    c = transformers.ConvNextConfig(
        depths=[1, 2, 1], hidden_sizes=[8, 12, 16], num_stages=3, num_labels=10
    )
    model = transformers.ConvNextForImageClassification(c)
    pair = Pair(randomised(model), SMALL, tmp_path, side=36, logits=lambda found: found.logits)
    assert pair.mapped.account.layout == "hf"
    held("transformers", "ConvNext of blocks 1, 2, 1", pair)
