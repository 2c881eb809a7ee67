"""VGGs as torchvision has them, and as the tables of distillation on CIFAR do.

Their convolutions have biases, which the running means of the BatchNorms behind them take up here.
"""

import numpy as np
import pytest

from tests.weights.parity import Pair, needed, randomised, state_of

torch, torchvision = needed("torch", "torchvision")

from tests.weights import cifar_in_torch  # noqa: E402

pytestmark = pytest.mark.thorough


def without_biases(state):
    """What is written: the biases of convolutions are zeros, and the means that much lower."""
    found = {**state}
    for name in [name for name in state if name.endswith(".running_mean")]:
        at, _, place = name.removesuffix(".running_mean").rpartition(".")
        bias = f"{at}.{int(place) - 1}.bias"
        found[name] = state[name] - state[bias]
        found[bias] = np.zeros_like(state[bias])
    return found


def test_torchvision(held, tmp_path):
    """Without its hidden layers, which the mean over space stands for here, and its last pooling."""
    model = torchvision.models.vgg11_bn(num_classes=10)
    hidden = state_of(randomised(model.classifier))
    model.features[-1] = model.classifier = torch.nn.Identity()
    model.avgpool = torch.nn.AdaptiveAvgPool2d(1)
    pair = Pair(
        randomised(model),
        {"name": "vgg", "depth": 11, "pools": 4},
        tmp_path,
        side=32,
        classes=None,
        skip=r"classifier\..*",
        state=lambda model: {
            **state_of(model),
            **{f"classifier.{name}": leaf for name, leaf in hidden.items()},
        },
        again=without_biases,
    )
    assert pair.mapped.account.layout == "torchvision"
    assert len(pair.mapped.account.skipped) == 6
    held("torchvision", "vgg11_bn, its convolutions", pair)


@pytest.mark.parametrize(("depth", "each"), [(8, 1), (13, 2)])
def test_cifar(depth, each, held, tmp_path):
    model = randomised(cifar_in_torch.VGG((each,) * 5, classes=10))
    fields = {"name": "vgg", "depth": depth}
    pair = Pair(model, fields, tmp_path, side=16, again=without_biases)
    assert pair.mapped.account.layout == "repdistiller"
    held(cifar_in_torch.SOURCE, f"vgg{depth}", pair)
