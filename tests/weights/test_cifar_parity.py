"""ResNets and wide ResNets as the tables of distillation on CIFAR have them.

Seen here with images of 16 pixels, for which float64 is a quarter of the work.
"""

import pytest

from tests.weights.parity import TOLERANCE, Pair, needed, randomised

(torch,) = needed("torch")

from tests.weights import cifar_in_torch  # noqa: E402
from tests.weights.cifar_in_torch import KUANGLIU, SOURCE  # noqa: E402

pytestmark = pytest.mark.thorough


@pytest.mark.parametrize(
    ("name", "depth", "multiplier"),
    [
        ("resnet20", 20, 1),
        ("resnet32", 32, 1),
        ("resnet56", 56, 1),
        ("resnet110", 110, 1),
        ("resnet8x4", 8, 4),
        ("resnet32x4", 32, 4),
    ],
)
def test_resnets(name, depth, multiplier, held, tmp_path):
    model = randomised(cifar_in_torch.resnet(depth, multiplier, classes=10))
    fields = {"name": "cifar_resnet", "depth": depth, "multiplier": multiplier}
    pair = Pair(model, fields, tmp_path, side=16, layout="repdistiller")
    held(SOURCE, name, pair)


@pytest.mark.parametrize(("depth", "widen"), [(16, 1), (16, 2), (40, 1), (40, 2)])
def test_wide_resnets(depth, widen, held, tmp_path):
    model = randomised(cifar_in_torch.WideResNet(depth, widen, classes=10))
    pair = Pair(model, {"name": "wide_resnet", "depth": depth, "widen": widen}, tmp_path, side=16)
    assert pair.mapped.account.layout == "repdistiller"
    held(SOURCE, f"wrn_{depth}_{widen}", pair)


def test_resnet18_of_pytorch_cifar(held, tmp_path):
    model = cifar_in_torch.ResNet(
        64, (64, 128, 256, 512), 2, classes=10, shortcut="shortcut", head="linear"
    )
    pair = Pair(randomised(model), {"name": "resnet18"}, tmp_path, side=16)
    assert pair.mapped.account.layout == "kuangliu"
    held(KUANGLIU, "resnet18", pair)


def test_a_difference_is_seen(tmp_path):
    """One bias of one BatchNorm: in the outputs, in the gradients, and in what is written."""
    model = randomised(cifar_in_torch.resnet(8, classes=10))
    pair = Pair(model, {"name": "cifar_resnet", "depth": 8}, tmp_path, side=16)
    pair.parity()
    with torch.no_grad():
        model.layer2[0].bn1.bias[3] += 0.05
    assert pair.evaluated() > TOLERANCE
    assert max(pair.gradients().values()) > TOLERANCE
    again = Pair(model, {"name": "cifar_resnet", "depth": 8}, tmp_path, side=16)
    again.variables = pair.variables
    written = again.written(again.variables)
    assert [n for n in written if (written[n] != again.state[n]).any()] == ["layer2.0.bn1.bias"]
