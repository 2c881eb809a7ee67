"""ResNets: torchvision's names, which timm and the CIFAR tables have too, and those of transformers."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from kdjax.models import ResNet
from kdjax.models.se_resnet import CAFFE_PADDING
from kdjax.weights.preprocessing import Preprocessing
from kdjax.weights.rules import Layout, Named, Rule
from kdjax.weights.transforms import conv_norm, dense_of_conv, head, linear

_BRANCH, _SQUEEZE = ("first", "second", "third"), ("reduce", "expand")


def _torchvision(
    network: Named, *, shortcut: str = "downsample", squeeze: str = "se", stem: str = ""
) -> tuple[Rule, ...]:
    """`layer1.0.conv1`, `layer1.0.bn1`, `layer1.0.downsample.0`; what a network lacks has no rule."""
    theirs, ours = "layer{s+1}.{b}", "stage{s}_block{b}"
    rules = conv_norm(f"{stem}conv1", f"{stem}bn1", "stem")
    for i, branch in enumerate(_BRANCH, start=1):
        rules += conv_norm(f"{theirs}.conv{i}", f"{theirs}.bn{i}", f"{ours}/{branch}")
    for i, dense in enumerate(_SQUEEZE, start=1):
        rules += linear(f"{theirs}.{squeeze}.fc{i}", f"{ours}/excite/{dense}", dense_of_conv)
    at = f"{theirs}.{shortcut}"
    return rules + conv_norm(f"{at}.0", f"{at}.1", f"{ours}/shortcut")


def _kuangliu(network: Named) -> tuple[Rule, ...]:
    """As torchvision's, with `shortcut` and `linear`."""
    return _torchvision(network, shortcut="shortcut")


def _legacy(network: Named) -> tuple[Rule, ...]:
    """Timm's `legacy_seresnet50`: the names of the authors' Caffe code."""
    return _torchvision(network, squeeze="se_module", stem="layer0.")


def _transformers(network: Named) -> tuple[Rule, ...]:
    """`encoder.stages.0.layers.0.layer.0.convolution`, and `.normalization`."""

    def pair(theirs: str, ours: str) -> tuple[Rule, ...]:
        return conv_norm(f"{theirs}.convolution", f"{theirs}.normalization", ours)

    theirs, ours = "encoder.stages.{s}.layers.{b}", "stage{s}_block{b}"
    rules = pair("embedder.embedder", "stem")
    for i, branch in enumerate(_BRANCH):
        rules += pair(f"{theirs}.layer.{i}", f"{ours}/{branch}")
    return rules + pair(f"{theirs}.shortcut", f"{ours}/shortcut")


def _unless_caffe(*, caffe: bool) -> Callable[..., Iterator[tuple[str, str, str]]]:
    """Refuses the other kind of SE-ResNets, whose tensors are of the same shapes."""

    def misfits(
        module: Any, said: Mapping[str, Any], architecture: str | None
    ) -> Iterator[tuple[str, str, str]]:
        own = module.pool_padding == CAFFE_PADDING
        if own != caffe:
            yield "caffe", f"{own}, and it is {caffe}", f"give caffe={caffe}"

    return misfits


LAYOUTS = (
    Layout(
        names=("torchvision", "timm", "repdistiller"),
        family="ResNet",
        of=ResNet,
        rules=_torchvision,
        misfits=_unless_caffe(caffe=False),
        head=head("fc"),
        marks=(r"conv1\.weight", r"bn1\.weight", r"layer1\.0\.conv1\.weight", r"fc\.weight"),
        preprocessing=Preprocessing(),
    ),
    Layout(
        names=("timm_legacy",),
        family="SE-ResNet",
        of=ResNet,
        rules=_legacy,
        misfits=_unless_caffe(caffe=True),
        head=head("last_linear"),
        marks=(r"layer0\.conv1\.weight", r"layer1\.0\.se_module\.fc1\.weight"),
        preprocessing=Preprocessing(),
    ),
    Layout(
        names=("kuangliu",),
        family="CIFAR ResNet",
        of=ResNet,
        rules=_kuangliu,
        head=head("linear"),
        marks=(r"conv1\.weight", r"layer1\.0\.conv1\.weight", r"linear\.weight"),
    ),
    Layout(
        names=("hf",),
        family="ResNet",
        of=ResNet,
        rules=_transformers,
        head=head("classifier.1"),
        marks=(r"embedder\.embedder\.convolution\.weight", r"encoder\.stages\.0\.layers\.0\..*"),
        prefix="resnet.",
        preprocessing=Preprocessing(interpolation="bicubic"),
    ),
)
