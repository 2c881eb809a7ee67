"""Published networks, as a config names them: those that weights are recognised as, likely ones first."""

from collections.abc import Iterator, Mapping
from typing import Any

_IMAGENET = {"imagenet_stem": True}
_TENSORFLOW = {"epsilon": 1e-3, "padding": "same"}
_CONVNEXTS = (
    ((3, 3, 9, 3), (96, 192, 384, 768)),
    ((3, 3, 27, 3), (96, 192, 384, 768)),
    ((3, 3, 27, 3), (128, 256, 512, 1024)),
    ((2, 2, 6, 2), (40, 80, 160, 320)),
    ((2, 2, 6, 2), (48, 96, 192, 384)),
    ((2, 2, 6, 2), (64, 128, 256, 512)),
    ((2, 2, 8, 2), (80, 160, 320, 640)),
)

IMAGENET_SIZE, CIFAR_SIZE = 224, 32
"""Of the pictures that they were trained on, where the files do not say it."""


def networks() -> Iterator[tuple[Mapping[str, Any], int]]:
    """Configs of published networks, each with the size of its pictures."""
    for config in _of_imagenet():
        yield config, IMAGENET_SIZE
    for config in _of_cifar():
        yield config, CIFAR_SIZE


def _of_imagenet() -> Iterator[dict[str, Any]]:
    for name in ("resnet18", "resnet34", "resnet50"):
        yield {"name": name, **_IMAGENET}
    for depth in (18, 34, 50):
        for caffe in (False, True):
            yield {"name": "se_resnet", "depth": depth, "caffe": caffe, **_IMAGENET}
    mobile = [{"name": "mobilenet_v2"}]
    mobile += [{"name": "mobilenet_v3", "size": size} for size in ("small", "large")]
    mobile += [{"name": "efficientnet_b0"}]
    mobile += [{"name": f"efficientnet_lite{i}"} for i in range(3)]
    for network in mobile:
        for convention in ({}, {"epsilon": 1e-3}, _TENSORFLOW):
            yield {**network, **_IMAGENET, **convention}
    for multiplier in (1.0, 0.5, 1.5, 2.0):
        yield {"name": "shufflenet_v2", "multiplier": multiplier, **_IMAGENET}
    for depths, widths in _CONVNEXTS:
        for scale in ({}, {"layer_scale": None}):
            yield {"name": "convnext", "depths": [*depths], "widths": [*widths], **scale}
    for name in ("vit_tiny", "vit_small", "vit_base"):
        for patch in (16, 8, 32, 14):
            yield {"name": name, "patch": patch}
        for registers in (0, 4):
            for positions in ("class", "patches"):
                yield {
                    "name": name,
                    "patch": 14,
                    "registers": registers,
                    "positions": positions,
                    "layer_scale": 1.0,
                }


def _of_cifar() -> Iterator[dict[str, Any]]:
    for depth in (20, 32, 44, 56, 110, 8, 14):
        yield {"name": "cifar_resnet", "depth": depth}
    for depth in (8, 32):
        yield {"name": "cifar_resnet", "depth": depth, "multiplier": 4}
    for depth, widen in ((16, 2), (40, 1), (40, 2)):
        yield {"name": "wide_resnet", "depth": depth, "widen": widen}
    for depth in (8, 11, 13, 16, 19):
        yield {"name": "vgg", "depth": depth}
    for name in ("resnet18", "resnet34", "resnet50"):
        yield {"name": name}
