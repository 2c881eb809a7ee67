"""ShuffleNetV2 as torchvision has it."""

import pytest

from tests.weights.parity import Pair, needed, randomised

torch, torchvision = needed("torch", "torchvision")


@pytest.mark.thorough
@pytest.mark.parametrize("multiplier", [0.5, 1.0, 1.5, 2.0])
def test_torchvision(multiplier, held, tmp_path):
    name = f"shufflenet_v2_x{str(multiplier).replace('.', '_')}"
    model = randomised(torchvision.models.get_model(name, num_classes=10))
    fields = {"name": "shufflenet_v2", "multiplier": multiplier, "imagenet_stem": True}
    pair = Pair(model, fields, tmp_path, side=64)
    assert pair.mapped.account.layout == "torchvision"
    held("torchvision", name, pair)
