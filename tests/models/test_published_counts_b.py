"""Parameters and multiply-accumulates of networks against the published ones, with 1,000 classes."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from kdjax import config, parse, tree
from kdjax.evaluate import flops
from kdjax.models import Classifier, Compute


class Published(NamedTuple):
    """What is published of a network.

    Attributes:
      fields: of the encoder's config.
      side: of the images, in pixels.
      parameters: all of them; of a table that rounds them, as the library of the same name has them.
      macs: multiply-accumulates.
      source: of both numbers.
      within: half of the last digit that is published.
    """

    fields: Mapping[str, Any]
    side: int
    parameters: int
    macs: float
    source: str
    within: float = 5e5


TORCHVISION = "torchvision's `_ops`, in the metrics of its weights"
TIMM = "timm, results/benchmark-infer-amp-nchw-pt113-cu117-rtx3090.csv"
"""Normalisations count as well there, two operations a value of a BatchNorm, five of a LayerNorm."""


def _imagenet(name: str, **fields: Any) -> dict[str, Any]:
    return {"name": name, "imagenet_stem": True, **fields}


def _convnext(width: int, *depths: int) -> dict[str, Any]:
    return {"name": "convnext", "depths": depths, "widths": [width * 2**i for i in range(4)]}


V3 = {size: _imagenet("mobilenet_v3", size=size) for size in ("small", "large")}
LITE = {i: _imagenet(f"efficientnet_lite{i}") for i in range(3)}

TABLE = {
    "mobilenet_v2": Published(_imagenet("mobilenet_v2"), 224, 3_504_872, 0.301e9, TORCHVISION),
    "mobilenet_v3_small": Published(V3["small"], 224, 2_542_856, 0.057e9, TORCHVISION),
    "mobilenet_v3_large": Published(V3["large"], 224, 5_483_032, 0.217e9, TORCHVISION),
    "efficientnet_b0": Published(
        _imagenet("efficientnet_b0"), 224, 5_288_548, 0.386e9, TORCHVISION
    ),
    # The authors' 0.407, 0.631 and 0.899 count some of the activations, too; which is not said.
    "efficientnet_lite0": Published(LITE[0], 224, 4_652_008, 0.40e9, TIMM, 5e6),
    "efficientnet_lite1": Published(LITE[1], 240, 5_416_680, 0.62e9, TIMM, 5e6),
    "efficientnet_lite2": Published(LITE[2], 260, 6_092_072, 0.89e9, TIMM, 5e6),
    "convnext_tiny": Published({"name": "convnext"}, 224, 28_589_128, 4.456e9, TORCHVISION),
    "convnext_atto": Published(_convnext(40, 2, 2, 6, 2), 288, 3_695_520, 0.91e9, TIMM, 5e6),
    "convnext_femto": Published(_convnext(48, 2, 2, 6, 2), 288, 5_217_784, 1.30e9, TIMM, 5e6),
    "convnext_pico": Published(_convnext(64, 2, 2, 6, 2), 288, 9_045_672, 2.27e9, TIMM, 5e6),
    "convnext_nano": Published(_convnext(80, 2, 2, 8, 2), 288, 15_593_560, 4.06e9, TIMM, 5e6),
    "vit_tiny": Published({"name": "vit_tiny"}, 224, 5_717_416, 1.26e9, TIMM, 5e6),
    "vit_small": Published({"name": "vit_small"}, 224, 22_050_664, 4.61e9, TIMM, 5e6),
    "vit_base": Published({"name": "vit_base"}, 224, 86_567_656, 17.564e9, TORCHVISION),
}


def normalised(model, variables, image) -> int:
    """Operations of all normalisations, of which a network has one kind, as `TIMM` counts them."""
    kind, each = (nn.BatchNorm, 2) if "batch_stats" in variables else (nn.LayerNorm, 5)

    def run(variables, image):
        return model.apply(
            variables,
            image,
            train=False,
            mutable=["intermediates"],
            capture_intermediates=lambda module, method: isinstance(module, kind),
        )[1]

    return each * tree.size(jax.eval_shape(run, variables, image))


CHEAP = ("efficientnet_lite0", "convnext_atto", "vit_tiny")


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[] if n in CHEAP else [pytest.mark.thorough]) for n in TABLE],
)
def test_parameters_and_multiply_accumulates_are_those_published(name):
    published = TABLE[name]
    encoder = parse.parse(config.Encoder, published.fields, "config.encoder").module(Compute())
    model = Classifier(encoder, 1000)
    image = jax.ShapeDtypeStruct((1, published.side, published.side, 3), jnp.float32)
    variables = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), image)
    assert tree.size(variables["params"]) == published.parameters
    found = flops(lambda v, x: model.apply(v, x, train=False)["logits"], variables, image) / 2
    if published.source == TIMM:
        found += normalised(model, variables, image)
    assert abs(found - published.macs) <= published.within
