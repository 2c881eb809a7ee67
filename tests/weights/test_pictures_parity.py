"""Pictures as timm and transformers make them ready for a network, from what they say beside weights."""

import json

import numpy as np
import pytest
from PIL import Image

from kdjax.data.sources import Frame
from kdjax.data.sources.framing import framed
from kdjax.weights.preprocessing import of_timm, of_transformers
from tests.picture_files import encoded, pixels
from tests.weights.parity import needed

torch, timm, transformers = needed("torch", "timm", "transformers")

pytestmark = pytest.mark.thorough

SHAPES = [(300, 200), (97, 64), (33, 120), (224, 224), (255, 301)]
TIMM = [
    "resnet18.a1_in1k",
    "mobilenetv3_small_100.lamb_in1k",
    "tf_efficientnet_lite0.in1k",
    "convnext_tiny.fb_in1k",
    "vit_small_patch16_224.dino",
    "vit_tiny_patch16_224.augreg_in21k_ft_in1k",
]


def assert_equal(given, known, picture, shape):
    """What a network is given, and what we frame, in pixels."""
    mean, std = (np.asarray(values)[:, None, None] for values in (known.mean, known.std))
    theirs = (np.asarray(given, np.float64) * std + mean) * 255
    np.testing.assert_allclose(theirs, np.round(theirs), atol=1e-3)
    ours = framed(encoded(picture), Frame(**known.frame()))
    np.testing.assert_array_equal(ours.transpose(2, 0, 1), np.round(theirs), err_msg=str(shape))


@pytest.mark.parametrize("name", TIMM)
def test_timm(name):
    cfg = timm.get_pretrained_cfg(name)
    transform = timm.data.create_transform(**timm.data.resolve_data_config(cfg.to_dict()))
    known = of_timm(json.loads(json.dumps({"pretrained_cfg": cfg.to_dict()}, default=list)))
    for i, shape in enumerate(SHAPES):
        picture = pixels(i, *shape)
        assert_equal(transform(Image.fromarray(picture)).numpy(), known, picture, shape)


@pytest.mark.parametrize(
    ("kind", "fields", "shapes"),
    [
        ("ViT", {"size": {"height": 224, "width": 224}}, SHAPES),
        # An odd pixel is left to the right and below there, and so that the offset is even in torch.
        ("ConvNext", {"size": {"shortest_edge": 224}}, [(224, 224), (300, 200), (64, 128)]),
        ("ConvNext", {"size": {"shortest_edge": 384}}, SHAPES),
    ],
)
def test_transformers(kind, fields, shapes):
    processor = getattr(transformers, f"{kind}ImageProcessorPil")(**fields)
    known = of_transformers(json.loads(processor.to_json_string()))
    for i, shape in enumerate(shapes):
        picture = pixels(i, *shape)
        given = processor(Image.fromarray(picture), return_tensors="np")["pixel_values"][0]
        assert_equal(given, known, picture, shape)
