"""ConvNeXt: names of timm, torchvision, transformers and the authors."""

from collections.abc import Sequence

import numpy as np

from kdjax.models import ConvNeXt
from kdjax.weights.preprocessing import Preprocessing
from kdjax.weights.rules import Layout, Named, Rule, Transform, one
from kdjax.weights.transforms import (
    conv,
    dense,
    head,
    layer_norm,
    linear,
    reshaped,
    same,
)

_SMALLEST_OF_DENSE = 96
"""Channels of the stem from which on timm's published networks have dense layers in their blocks."""


def _dense_or_conv(written_as_conv: bool) -> Transform:
    """A 1x1 convolution of a dense layer or of its own kind, whichever comes; one is written."""

    def into(found: np.ndarray) -> np.ndarray:
        how = conv if found.ndim == 4 else dense
        return how.into([found], [()])[0].reshape(1, 1, found.shape[1], found.shape[0])

    def out(kernel: np.ndarray) -> np.ndarray:
        return conv.out([kernel])[0] if written_as_conv else dense.out([kernel[0, 0]])[0]

    return one(into, out)


def _block(
    theirs: str,
    ours: str,
    names: Sequence[str],
    *,
    scale: Transform = same,
    written_as_conv: bool = False,
) -> tuple[Rule, ...]:
    """A block, by the names of its scale, convolution, norm and the two layers of its MLP."""
    gamma, depthwise, norm, expand, project = names
    how = _dense_or_conv(written_as_conv)
    return (
        Rule(f"{theirs}.{gamma}", f"params/{ours}/scale", scale),
        *linear(f"{theirs}.{depthwise}", f"{ours}/depthwise", conv),
        *layer_norm(f"{theirs}.{norm}", f"{ours}/norm"),
        *linear(f"{theirs}.{expand}", f"{ours}/expand", how),
        *linear(f"{theirs}.{project}", f"{ours}/project", how),
    )


def _timm(network: Named) -> tuple[Rule, ...]:
    """`stages.0.blocks.0.conv_dw`; those below ConvNeXt-T have 1x1 convolutions for dense layers."""
    module = network.module
    assert isinstance(module, ConvNeXt)  # see `Layout.of`
    return (
        *linear("stem.0", "stem", conv),
        *layer_norm("stem.1", "stem_norm"),
        *layer_norm("stages.{s}.downsample.0", "stage{s}_down_norm"),
        *linear("stages.{s}.downsample.1", "stage{s}_down", conv),
        *_block(
            "stages.{s}.blocks.{b}",
            "stage{s}_block{b}",
            ("gamma", "conv_dw", "norm", "mlp.fc1", "mlp.fc2"),
            written_as_conv=module.widths[0] < _SMALLEST_OF_DENSE,
        ),
        *layer_norm("head.norm", "norm"),
    )


def _torchvision(network: Named) -> tuple[Rule, ...]:
    """`features.1.0.block.0`: stages at odd numbers, and between them what halves the image."""
    module = network.module
    assert isinstance(module, ConvNeXt)  # see `Layout.of`
    rules = linear("features.0.0", "stem", conv) + layer_norm("features.0.1", "stem_norm")
    for s in range(len(module.depths)):
        rules += layer_norm(f"features.{2 * s}.0", f"stage{s}_down_norm")
        rules += linear(f"features.{2 * s}.1", f"stage{s}_down", conv)
        rules += _block(
            f"features.{2 * s + 1}.{{b}}",
            f"stage{s}_block{{b}}",
            ("layer_scale", "block.0", "block.2", "block.3", "block.5"),
            scale=reshaped([-1], [-1, 1, 1]),
        )
    return rules + layer_norm("classifier.0", "norm")


def _transformers(network: Named) -> tuple[Rule, ...]:
    """`encoder.stages.0.layers.0.dwconv`."""
    stage = "encoder.stages.{s}"
    return (
        *linear("embeddings.patch_embeddings", "stem", conv),
        *layer_norm("embeddings.layernorm", "stem_norm"),
        *layer_norm(f"{stage}.downsampling_layer.0", "stage{s}_down_norm"),
        *linear(f"{stage}.downsampling_layer.1", "stage{s}_down", conv),
        *_block(
            f"{stage}.layers.{{b}}",
            "stage{s}_block{b}",
            ("layer_scale_parameter", "dwconv", "layernorm", "pwconv1", "pwconv2"),
        ),
        *layer_norm("layernorm", "norm"),
    )


def _authors(network: Named) -> tuple[Rule, ...]:
    """`downsample_layers.0.0`, `stages.0.0.dwconv`."""
    return (
        *linear("downsample_layers.0.0", "stem", conv),
        *layer_norm("downsample_layers.0.1", "stem_norm"),
        *layer_norm("downsample_layers.{s}.0", "stage{s}_down_norm"),
        *linear("downsample_layers.{s}.1", "stage{s}_down", conv),
        *_block(
            "stages.{s}.{b}",
            "stage{s}_block{b}",
            ("gamma", "dwconv", "norm", "pwconv1", "pwconv2"),
        ),
        *layer_norm("norm", "norm"),
    )


LAYOUTS = (
    Layout(
        names=("timm",),
        family="ConvNeXt",
        of=ConvNeXt,
        rules=_timm,
        head=head("head.fc"),
        marks=(r"stem\.0\.weight", r"stages\.0\.blocks\.0\.conv_dw\.weight"),
        preprocessing=Preprocessing(interpolation="bicubic"),
    ),
    Layout(
        names=("torchvision",),
        family="ConvNeXt",
        of=ConvNeXt,
        rules=_torchvision,
        head=head("classifier.2"),
        marks=(r"features\.0\.0\.weight", r"features\.1\.0\.layer_scale"),
        preprocessing=Preprocessing(crop=224 / 236),
    ),
    Layout(
        names=("hf",),
        family="ConvNeXt",
        of=ConvNeXt,
        rules=_transformers,
        head=head("classifier"),
        marks=(r"encoder\.stages\.0\.layers\.0\.dwconv\.weight",),
        prefix="convnext.",
        preprocessing=Preprocessing(interpolation="bicubic"),
    ),
    Layout(
        names=("convnext",),
        family="ConvNeXt",
        of=ConvNeXt,
        rules=_authors,
        head=head("head"),
        marks=(r"downsample_layers\.0\.0\.weight", r"stages\.0\.0\.dwconv\.weight"),
        preprocessing=Preprocessing(interpolation="bicubic"),
    ),
)
