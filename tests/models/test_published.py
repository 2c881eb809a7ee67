"""All networks: parameters and multiply-accumulates are the published ones, with the published head.

A row says where the numbers are from. Those of one network of torchvision or timm were counted in torch
by hooks on convolutions and linear layers, which the last test does again where torch is installed;
their tables are rounded; those of the CIFAR tables and of MLPerf Tiny are also worked out here by hand.
"""

import dataclasses
import importlib
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn

from kdjax import config, models, parse, tree
from kdjax.evaluate import flops

IMAGENET, CIFAR, SPEECH = (224, 224, 3), (32, 32, 3), (49, 10, 1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Published:
    """A network with what is published of it.

    Attributes:
      encoder: of kdjax.
      classes: of the published classifier.
      image: height, width and channels.
      parameters: as published; of a table that rounds them, as the library of the same name has them.
      macs: multiply-accumulates of convolutions and linear layers, for one image.
      source: of the numbers.
      within: half of the last digit of `macs` that is published.
      redundant: of the parameters, biases of convolutions before a BatchNorm, which kdjax has not.
      statistics: whether the published number counts those of BatchNorm among the parameters.
      quick: whether it is among the quick tests.
    """

    encoder: nn.Module
    classes: int
    image: tuple[int, int, int]
    parameters: int
    macs: float
    source: str
    within: float = 0
    redundant: int = 0
    statistics: bool = False
    quick: bool = False


REPDISTILLER = "github.com/HobbitLong/RepDistiller: models, counted"
TINY = "github.com/mlcommons/tiny: benchmark/training, the Keras summaries"
TUTORIAL = "tutorials on knowledge distillation, worked out"
TORCHVISION = "torchvision's `_ops`, in the metrics of its weights"
TIMM = "timm, results/benchmark-infer-amp-nchw-pt113-cu117-rtx3090.csv"
"""Normalisations count as well there, two operations a value of a BatchNorm, five of a LayerNorm."""


def _conv(side: int, kernel: int, arriving: int, features: int) -> int:
    return side * side * kernel * kernel * arriving * features


def _cifar_resnet(depth: int, stem: int, widths: tuple[int, ...]) -> int:
    """Stages of (depth - 2) / 6 blocks on images of 32, 16 and 8 pixels; 100 classes."""
    found, arriving = _conv(32, 3, 3, stem), stem
    for stage, width in enumerate(widths):
        side = 32 >> stage
        if stage or arriving != width:
            found += _conv(side, 1, arriving, width)
        for _ in range((depth - 2) // 6):
            found += _conv(side, 3, arriving, width) + _conv(side, 3, width, width)
            arriving = width
    return found + arriving * 100


def _wide_resnet(depth: int, widen: int) -> int:
    """As those, with (depth - 4) / 6 blocks and a stem of 16."""
    return _cifar_resnet(depth - 2, 16, (16 * widen, 32 * widen, 64 * widen))


def _vgg(convolutions: tuple[int, ...]) -> int:
    """Convolutions of each stage on 32, 16, 8, 4 and 4 pixels; 100 classes."""
    found, arriving = 0, 3
    for count, width, side in zip(
        convolutions, (64, 128, 256, 512, 512), (32, 16, 8, 4, 4), strict=True
    ):
        for _ in range(count):
            found += _conv(side, 3, arriving, width)
            arriving = width
    return found + 512 * 100


def _mlperf_resnet8() -> int:
    found = _conv(32, 3, 3, 16) + 2 * _conv(32, 3, 16, 16)
    for side, width in ((16, 32), (8, 64)):
        found += _conv(side, 3, width // 2, width) + _conv(side, 3, width, width)
        found += _conv(side, 1, width // 2, width)
    return found + 64 * 10


def _plain(first: int, second: int, hidden: int) -> int:
    found = _conv(32, 3, 3, first) + _conv(16, 3, first, second)
    return found + 8 * 8 * second * hidden + hidden * 10


def _imagenet(encoder: nn.Module, parameters: int, macs: int, source: str, quick: bool = False):
    return Published(
        encoder=encoder,
        classes=1000,
        image=IMAGENET,
        parameters=parameters,
        macs=macs,
        source=source,
        quick=quick,
    )


def _cifar(encoder: nn.Module, parameters: int, macs: int, redundant: int = 0, quick: bool = False):
    return Published(
        encoder=encoder,
        classes=100,
        image=CIFAR,
        parameters=parameters,
        macs=macs,
        source=REPDISTILLER,
        redundant=redundant,
        quick=quick,
    )


def _wrn(depth: int, widen: int, parameters: int, quick: bool = False):
    encoder = models.wide_resnet(depth, widen=widen)
    return _cifar(encoder, parameters, _wide_resnet(depth, widen), quick=quick)


def _large(name: str, *args, **kwargs) -> nn.Module:
    return getattr(models, name)(*args, imagenet_stem=True, **kwargs)


def _rounded(
    source: str,
    fields: dict[str, Any],
    parameters: int,
    macs: float,
    *,
    side: int = 224,
    quick: bool = False,
):
    """Of a table that has its counts in billions: torchvision's to three places, timm's to two."""
    return Published(
        encoder=parse.parse(config.Encoder, fields, "config.encoder").module(models.Compute()),
        classes=1000,
        image=(side, side, 3),
        parameters=parameters,
        macs=macs,
        source=source,
        within={TORCHVISION: 5e5, TIMM: 5e6}[source],
        quick=quick,
    )


def _stem(name: str, **fields: Any) -> dict[str, Any]:
    return {"name": name, "imagenet_stem": True, **fields}


def _convnext(width: int, *depths: int) -> dict[str, Any]:
    return {"name": "convnext", "depths": depths, "widths": [width * 2**i for i in range(4)]}


PUBLISHED = {
    "resnet18": _imagenet(
        _large("resnet18"), 11_689_512, 1_814_073_344, "torchvision.resnet18", quick=True
    ),
    "resnet34": _imagenet(_large("resnet34"), 21_797_672, 3_663_761_408, "torchvision.resnet34"),
    "resnet50": _imagenet(_large("resnet50"), 25_557_032, 4_089_184_256, "torchvision.resnet50"),
    "seresnet18": _imagenet(_large("se_resnet", 18), 11_779_624, 1_814_161_408, "timm.seresnet18"),
    "seresnet34": _imagenet(_large("se_resnet", 34), 21_960_416, 3_663_920_128, "timm.seresnet34"),
    "seresnet50": _imagenet(_large("se_resnet", 50), 28_088_024, 4_091_699_200, "timm.seresnet50"),
    "legacy_seresnet18": _imagenet(
        _large("se_resnet", 18, caffe=True), 11_778_592, 1_814_160_384, "timm.legacy_seresnet18"
    ),
    "legacy_seresnet34": _imagenet(
        _large("se_resnet", 34, caffe=True), 21_958_868, 3_663_918_592, "timm.legacy_seresnet34"
    ),
    "legacy_seresnet50": _imagenet(
        _large("se_resnet", 50, caffe=True), 28_088_024, 3_860_488_192, "timm.legacy_seresnet50"
    ),
    "shufflenet_v2_x0.5": _imagenet(
        _large("shufflenet_v2", multiplier=0.5),
        1_366_792,
        40_476_448,
        "torchvision.shufflenet_v2_x0_5",
        quick=True,
    ),
    "shufflenet_v2_x1.0": _imagenet(
        _large("shufflenet_v2"), 2_278_604, 144_907_992, "torchvision.shufflenet_v2_x1_0"
    ),
    "shufflenet_v2_x1.5": _imagenet(
        _large("shufflenet_v2", multiplier=1.5),
        3_503_624,
        295_759_392,
        "torchvision.shufflenet_v2_x1_5",
    ),
    "shufflenet_v2_x2.0": _imagenet(
        _large("shufflenet_v2", multiplier=2.0),
        7_393_996,
        583_253_464,
        "torchvision.shufflenet_v2_x2_0",
    ),
    "resnet20": _cifar(
        models.cifar_resnet(20), 278_324, _cifar_resnet(20, 16, (16, 32, 64)), quick=True
    ),
    "resnet32": _cifar(models.cifar_resnet(32), 472_756, _cifar_resnet(32, 16, (16, 32, 64))),
    "resnet56": _cifar(models.cifar_resnet(56), 861_620, _cifar_resnet(56, 16, (16, 32, 64))),
    "resnet110": _cifar(models.cifar_resnet(110), 1_736_564, _cifar_resnet(110, 16, (16, 32, 64))),
    "resnet8x4": _cifar(
        models.cifar_resnet(8, multiplier=4),
        1_233_540,
        _cifar_resnet(8, 32, (64, 128, 256)),
        quick=True,
    ),
    "resnet32x4": _cifar(
        models.cifar_resnet(32, multiplier=4), 7_433_860, _cifar_resnet(32, 32, (64, 128, 256))
    ),
    "wrn_16_1": _wrn(16, 1, 180_916),
    "wrn_16_2": _wrn(16, 2, 703_284, quick=True),
    "wrn_40_1": _wrn(40, 1, 569_780),
    "wrn_40_2": _wrn(40, 2, 2_255_156),
    "vgg8": _cifar(models.vgg(8), 3_965_028, _vgg((1, 1, 1, 1, 1)), redundant=1472, quick=True),
    "vgg13": _cifar(models.vgg(13), 9_462_180, _vgg((2, 2, 2, 2, 2)), redundant=2944),
    "vgg16": _cifar(models.vgg(16), 14_774_436, _vgg((2, 2, 3, 3, 3)), redundant=4224),
    "wrn_28_10": Published(
        encoder=models.wide_resnet(28, widen=10),
        classes=10,
        image=CIFAR,
        parameters=36_479_194,
        macs=_wide_resnet(28, 10) - 640 * 90,
        source="github.com/szagoruyko/wide-residual-networks: WRN-28-10, 36.5 M",
    ),
    "resnet18_cifar": Published(
        encoder=models.resnet18(),
        classes=10,
        image=CIFAR,
        parameters=11_173_962,
        macs=555_422_720,
        source="github.com/kuangliu/pytorch-cifar: ResNet18, counted",
    ),
    "mlperf_resnet8": Published(
        encoder=models.mlperf_resnet8(),
        classes=10,
        image=CIFAR,
        parameters=78_666,
        macs=_mlperf_resnet8(),
        source=TINY,
        redundant=16 + 2 * (16 + 32 + 64),
        statistics=True,
        quick=True,
    ),
    "ds_cnn": Published(
        encoder=models.ds_cnn(),
        classes=12,
        image=SPEECH,
        parameters=24_908,
        macs=25 * 5 * 64 * (10 * 4 + 4 * (3 * 3 + 64)) + 64 * 12,
        source=TINY,
        redundant=9 * 64,
        statistics=True,
        quick=True,
    ),
    "plain_cnn": Published(
        encoder=models.PlainCNN(),
        classes=10,
        image=CIFAR,
        parameters=1_792 + 73_856 + 8_193_000 + 10_010,
        macs=_plain(64, 128, 1000),
        source=TUTORIAL,
        quick=True,
    ),
    "plain_cnn_student": Published(
        encoder=models.PlainCNN((32, 64), hidden=500),
        classes=10,
        image=CIFAR,
        parameters=896 + 18_496 + 2_048_500 + 5_010,
        macs=_plain(32, 64, 500),
        source=TUTORIAL,
    ),
    "mobilenet_v2": _rounded(TORCHVISION, _stem("mobilenet_v2"), 3_504_872, 0.301e9),
    "mobilenet_v3_small": _rounded(
        TORCHVISION, _stem("mobilenet_v3", size="small"), 2_542_856, 0.057e9
    ),
    "mobilenet_v3_large": _rounded(
        TORCHVISION, _stem("mobilenet_v3", size="large"), 5_483_032, 0.217e9
    ),
    "efficientnet_b0": _rounded(TORCHVISION, _stem("efficientnet_b0"), 5_288_548, 0.386e9),
    # The authors' 0.407, 0.631 and 0.899 count some of the activations, too; which is not said.
    "efficientnet_lite0": _rounded(
        TIMM, _stem("efficientnet_lite0"), 4_652_008, 0.40e9, quick=True
    ),
    "efficientnet_lite1": _rounded(TIMM, _stem("efficientnet_lite1"), 5_416_680, 0.62e9, side=240),
    "efficientnet_lite2": _rounded(TIMM, _stem("efficientnet_lite2"), 6_092_072, 0.89e9, side=260),
    "convnext_tiny": _rounded(TORCHVISION, {"name": "convnext"}, 28_589_128, 4.456e9),
    "convnext_atto": _rounded(
        TIMM, _convnext(40, 2, 2, 6, 2), 3_695_520, 0.91e9, side=288, quick=True
    ),
    "convnext_femto": _rounded(TIMM, _convnext(48, 2, 2, 6, 2), 5_217_784, 1.30e9, side=288),
    "convnext_pico": _rounded(TIMM, _convnext(64, 2, 2, 6, 2), 9_045_672, 2.27e9, side=288),
    "convnext_nano": _rounded(TIMM, _convnext(80, 2, 2, 8, 2), 15_593_560, 4.06e9, side=288),
    "vit_tiny": _rounded(TIMM, {"name": "vit_tiny"}, 5_717_416, 1.26e9, quick=True),
    "vit_small": _rounded(TIMM, {"name": "vit_small"}, 22_050_664, 4.61e9),
    "vit_base": _rounded(TORCHVISION, {"name": "vit_base"}, 86_567_656, 17.564e9),
}


def normalised(model: nn.Module, variables: Any, image: Any) -> int:
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


@pytest.mark.parametrize(
    "row",
    [
        pytest.param(row, id=name, marks=[] if row.quick else [pytest.mark.thorough])
        for name, row in PUBLISHED.items()
    ],
)
def test_a_network_is_as_large_and_costs_as_much_as_published(row):
    model = models.Classifier(row.encoder, row.classes)
    image = jax.ShapeDtypeStruct((1, *row.image), jnp.float32)
    key = jax.random.key(0)
    variables = jax.eval_shape(lambda x: model.init(key, x, train=False), image)
    found = tree.size(variables["params"]) + row.redundant
    if row.statistics:
        found += tree.size(variables["batch_stats"])
    assert found == row.parameters
    operations = flops(lambda v, x: model.apply(v, x, train=False)["logits"], variables, image)
    if row.source == TIMM:
        operations += 2 * normalised(model, variables, image)
    assert abs(operations - 2 * row.macs) <= 2 * row.within


def test_the_macs_of_mlperf_tiny_are_those_it_publishes():
    """Banbury et al. 2021, table 1, has 12.5 M and 2.7 M."""
    assert round(PUBLISHED["mlperf_resnet8"].macs / 1e6, 1) == 12.5
    assert round(PUBLISHED["ds_cnn"].macs / 1e6, 1) == 2.7


@pytest.mark.thorough
@pytest.mark.parametrize(
    "name", [n for n, row in PUBLISHED.items() if row.source.startswith(("timm.", "torchvision."))]
)
def test_what_torch_counts(name):
    row = PUBLISHED[name]
    room, _, of = row.source.partition(".")
    torch = pytest.importorskip("torch", reason="needs torch, torchvision and timm")
    try:
        library = importlib.import_module({"torchvision": "torchvision.models"}.get(room, room))
    except (ImportError, RuntimeError) as error:  # a build for another torch
        pytest.skip(f"{room} cannot be imported: {error}")
    make = getattr(library, of, None) or (lambda: library.create_model(of))
    module, macs = make(), [0]

    def count(layer, given, found):
        per_output = layer.weight[0].numel()
        macs[0] += per_output * found.numel()

    for layer in module.modules():
        if isinstance(layer, torch.nn.Conv2d | torch.nn.Linear):
            layer.register_forward_hook(count)
    height, width, channels = row.image
    with torch.no_grad():
        module.eval()(torch.zeros(1, channels, height, width))
    assert sum(p.numel() for p in module.parameters()) == row.parameters
    assert macs[0] == row.macs
