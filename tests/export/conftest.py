import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.artifacts.model import Spec
from kdjax.config.encoders.cnn import CNN
from kdjax.config.encoders.convnext import ConvNeXt
from kdjax.config.encoders.mlperf_tiny import DSCNN, MLPerfResNet8
from kdjax.config.encoders.mobilenet import (
    EfficientNetB0,
    EfficientNetLite0,
    MobileNetV2,
    MobileNetV3,
)
from kdjax.config.encoders.plain_cnn import PlainCNN
from kdjax.config.encoders.resnet import CifarResNet, ResNet18, ResNet50
from kdjax.config.encoders.se_resnet import SEResNet
from kdjax.config.encoders.shufflenet import ShuffleNetV2
from kdjax.config.encoders.vgg import VGG
from kdjax.config.encoders.vit import ViT, ViTTiny
from kdjax.config.encoders.wide_resnet import WideResNet
from kdjax.inputs import Inputs
from kdjax.tasks import Classification
from kdjax.types import Field
from tests.some import some

ENCODERS = {
    "cnn": CNN(name="cnn", widths=(8, 16)),
    "resnet8": CifarResNet(name="cifar_resnet", depth=8),
    "resnet18": ResNet18(name="resnet18", width=8),
    "vit": ViT(name="vit", width=16, depth=2, heads=2, mlp=32, patch=4),
    "resnet50": ResNet50(name="resnet50", width=8),
    "vgg8": VGG(name="vgg", depth=8, width=8),
    "mobilenet_v2": MobileNetV2(name="mobilenet_v2", multiplier=0.25),
    "mobilenet_v3": MobileNetV3(name="mobilenet_v3", size="small", multiplier=0.25),
    "efficientnet_b0": EfficientNetB0(name="efficientnet_b0", multiplier=0.25),
    "efficientnet_lite0": EfficientNetLite0(
        name="efficientnet_lite0", multiplier=0.25, epsilon=1e-3, padding="same"
    ),
    "convnext": ConvNeXt(name="convnext", depths=(1, 1), widths=(8, 16), layer_scale=0.5),
    "vit_tiny": ViTTiny(
        name="vit_tiny", width=16, depth=2, heads=2, mlp=32, patch=4, registers=2, layer_scale=0.5
    ),
    "wrn10_2": WideResNet(name="wide_resnet", depth=10, widen=2),
    "resnet18_imagenet": ResNet18(name="resnet18", width=8, imagenet_stem=True),
    "se_resnet18": SEResNet(name="se_resnet", depth=18, width=8),
    "shufflenet_v2": ShuffleNetV2(name="shufflenet_v2", multiplier=0.5),
    "mlperf_resnet8": MLPerfResNet8(name="mlperf_resnet8", width=8),
    "ds_cnn": DSCNN(name="ds_cnn", width=16, blocks=2),
    "plain_cnn": PlainCNN(name="plain_cnn", widths=(8, 16), hidden=32),
}

THOROUGH = {
    "resnet50",
    "mobilenet_v2",
    "efficientnet_b0",
    "wrn10_2",
    "efficientnet_lite0",
    "resnet18_imagenet",
    "se_resnet18",
    "shufflenet_v2",
    "mlperf_resnet8",
    "ds_cnn",
    "plain_cnn",
}
"""Of them, those that the quick tests leave out."""


class Deployed:
    """A classifier with statistics as training leaves them, as it is exported and as it is live."""

    def __init__(self, name):
        self.spec = Spec(
            encoder=ENCODERS[name],
            inputs=Inputs.of(
                {"image": Field((12, 12, 3), "uint8")}, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4)
            ),
            task=Classification(classes=10),
        )
        random = np.random.default_rng(0)

        def trained(path, leaf):
            # Fresh statistics are 0 and 1, which a wrong folding would leave alone.
            match jax.tree_util.keystr(path[-1:], simple=True):
                case "mean" | "bias":
                    value = random.normal(size=leaf.shape, scale=0.3)
                case "var" | "scale" | "attention_scale" | "mlp_scale":
                    value = random.uniform(0.5, 1.5, size=leaf.shape)
                case "kernel" | "position" | "class_embedding" | "register_embeddings":
                    value = random.normal(size=leaf.shape) * (2 / np.prod(leaf.shape[:-1])) ** 0.5
            return jnp.float32(value)

        self.variables = jax.tree_util.tree_map_with_path(trained, self.spec.abstract())
        self.predict = self.spec.deployed(self.variables)

    def images(self, batch):
        return np.random.default_rng(batch).integers(0, 256, (batch, 12, 12, 3), np.uint8)

    def live(self, images):
        return np.asarray(jax.jit(self.spec.predict)(self.variables, {"image": images}))


made = functools.cache(Deployed)


@pytest.fixture(scope="session", params=["cnn", "resnet8", "resnet18", "vit"])
def deployed(request):
    return made(request.param)


@pytest.fixture(params=some(ENCODERS, *THOROUGH))
def every_family(request):
    return made(request.param)
