"""Every family of `kdjax.models`, a few blocks of it: masked and shrunk agree."""

import dataclasses

import hypothesis.strategies as st
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from hypothesis import given, settings

from kdjax import models, tree
from kdjax.shrink import Model, groups_of
from tests.shrink.parity import kept_at_random, masks_of, normal, shrunk_is_masked, variables_of
from tests.some import some


def rows_of(encoder, *which):
    """A MobileNet with a few of its rows."""
    return dataclasses.replace(encoder, rows=tuple(encoder.rows[i] for i in which))


def replaced(encoder, blocks, widths):
    """A ResNet with a few of its blocks."""
    return dataclasses.replace(encoder, blocks=blocks, widths=widths)


RESNET50 = models.resnet50(width=2)

TENSORFLOW = models.Convention(epsilon=1e-3, momentum=0.99, padding="same")
PUBLISHED = {
    "class_token": True,
    "registers": 2,
    "positions": "class",
    "pool": "class_and_mean",
    "gelu": "exact",
    "qkv_bias": False,
    "layer_scale": 0.5,
}

# Encoder, image, groups.
FAMILIES = {
    "resnet18": (
        dataclasses.replace(models.resnet18(width=4), blocks=(2, 1), widths=(4, 4, 8)),
        8,
        5,
    ),
    "resnet50": (dataclasses.replace(RESNET50, blocks=(2, 1), widths=(2, 2, 4)), 8, 9),
    "vgg": (models.vgg(8, width=4), 8, 5),
    "mobilenet_v2": (rows_of(models.mobilenet_v2(multiplier=0.125), 0, 1, 2, 3), 8, 8),
    "mobilenet_v3_small": (rows_of(models.mobilenet_v3_small(multiplier=0.125), 0, 3, 4), 8, 10),
    "efficientnet_b0": (rows_of(models.efficientnet_b0(multiplier=0.125), 0, 1, 2), 8, 9),
    "efficientnet_lite": (
        rows_of(models.efficientnet_lite(0, multiplier=0.125, convention=TENSORFLOW), 0, 1, 2),
        8,
        6,
    ),
    "convnext": (models.convnext(depths=(1, 1), widths=(4, 6), patch=2, layer_scale=0.5), 8, 2),
    "vit": (models.vit(width=12, depth=1, heads=3, mlp=16, patch=4), 8, 2),
    "vit_published": (models.vit(width=12, depth=1, heads=3, mlp=16, patch=4, **PUBLISHED), 8, 2),
    "resnet18_imagenet": (
        models.ResNet(blocks=(1, 1), widths=(4, 4, 6), imagenet_stem=True),
        16,
        4,
    ),
    "se_resnet18": (replaced(models.se_resnet(18, width=8), (1, 1), (4, 4, 8)), 8, 6),
    "se_resnet50": (
        replaced(models.se_resnet(50, width=4, imagenet_stem=True, caffe=True), (1, 1), (4, 4, 8)),
        16,
        8,
    ),
    "wide_resnet": (models.WideResNet(blocks=(2, 1), widths=(4, 6, 8)), 8, 6),
    "wrn10_1": (models.wide_resnet(10), 8, 6),
    "shufflenet_v2": (models.ShuffleNetV2(6, (8, 12), (2, 1), 16, imagenet_stem=True), 16, 6),
    "mlperf_resnet8": (models.mlperf_resnet8(width=4), 8, 6),
    "ds_cnn": (models.ds_cnn(width=8, blocks=2), 8, 3),
    "plain_cnn": (models.PlainCNN((6, 8), hidden=12), 8, 3),
}

THOROUGH = (
    "resnet18_imagenet",
    "se_resnet18",
    "se_resnet50",
    "wrn10_1",
    "mlperf_resnet8",
    "ds_cnn",
    "efficientnet_b0",
    "vit",
    "resnet50",
    "wide_resnet",
)


@pytest.mark.parametrize(
    "family",
    some(FAMILIES, *THOROUGH),
)
def test_masked_is_shrunk(family):
    encoder, side, count = FAMILIES[family]
    model = Model(models.Classifier(encoder, 5), lambda o: o["logits"], {"train": False})
    x = normal(1, 2, side, side, 3)
    variables = variables_of(model.module, x, train=False)
    groups = groups_of(model, variables, x)
    assert len(groups) == count
    kept = kept_at_random(groups, 0)
    # Every second group loses only the kernels that make its units.
    made = list(groups.sizes)[1::2]
    masks = masks_of(groups, kept, variables["params"], made)
    found = shrunk_is_masked(model, masks, variables, x, groups=groups)
    for name in set(groups.sizes) - set(made):
        np.testing.assert_array_equal(found.kept[name], kept[name])
    assert tree.size(found.variables["params"]) < 0.9 * tree.size(variables["params"])


def test_what_makes_alone_is_taken_away_where_its_constant_can_go():
    """After a dead BatchNorm channel behind a ReLU, without padding or with nothing left."""
    encoder = FAMILIES["resnet50"][0]
    model = Model(models.Classifier(encoder, 5), lambda o: o["logits"], {"train": False})
    x = normal(1, 2, 8, 8, 3)
    variables = variables_of(model.module, x, train=False)
    groups = groups_of(model, variables, x)
    kept = kept_at_random(groups, 1)
    masks = masks_of(groups, kept, variables["params"], list(groups.sizes))
    found = shrunk_is_masked(model, masks, variables, x, groups=groups)
    for name in groups.sizes:
        if name.endswith("/second/conv"):  # a 1x1 convolution with a BatchNorm reads it
            np.testing.assert_array_equal(found.kept[name], kept[name])
    first = "encoder/stage0_block0/first/conv"  # a padded 3x3 reads it
    params, stats = variables["params"], variables["batch_stats"]
    norm, moments = (
        tree_["encoder"]["stage0_block0"]["first"]["norm"] for tree_ in (params, stats)
    )
    constant = norm["bias"] - moments["mean"] * norm["scale"] / jnp.sqrt(moments["var"] + 1e-5)
    np.testing.assert_array_equal(found.kept[first], kept[first] | np.asarray(constant > 0))


class Drawn(nn.Module):
    """An architecture as data: a list of blocks, each of a name and a width."""

    blocks: tuple[tuple[str, int], ...]

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(4, (3, 3))(x)
        before = [x]
        for block, width in self.blocks:
            match block:
                case "conv":
                    x = nn.relu(nn.Conv(width, (3, 3))(x))
                case "valid":
                    x = nn.Conv(width, (1, 1), padding="VALID")(nn.relu(x))
                case "norm":
                    x = nn.BatchNorm(use_running_average=True)(x)
                case "depthwise":
                    x = nn.Conv(x.shape[-1], (3, 3), feature_group_count=x.shape[-1])(nn.relu(x))
                case "residual":
                    y = nn.Conv(width, (1, 1))(nn.relu(x))
                    x = x + nn.Conv(x.shape[-1], (3, 3), use_bias=False)(nn.relu(y))
                case "concat":
                    x = jnp.concatenate([x, nn.Conv(width, (1, 1))(nn.relu(x))], -1)
                case "earlier":
                    x = jnp.concatenate([before[len(before) // 2], x], -1)
                case "excite":
                    gate = nn.relu(nn.Dense(width)(x.mean((1, 2))))
                    x = x * nn.sigmoid(nn.Dense(x.shape[-1])(gate))[:, None, None]
                case "gate":
                    a, b = jnp.split(nn.Conv(2 * width, (1, 1))(x), 2, axis=-1)
                    x = a * nn.sigmoid(b)
                case "pool":
                    x = nn.max_pool(x, (2, 2), (1, 1), "SAME")
                case "group":
                    x = nn.GroupNorm(num_groups=None, group_size=1)(x)
                case "layer":
                    x = nn.LayerNorm()(x)
            before.append(x)
        x = x.mean((1, 2)) if len(self.blocks) % 2 else x.reshape(len(x), -1)
        return nn.Dense(3)(nn.relu(nn.Dense(4)(x)))


BLOCKS = [
    "conv",
    "valid",
    "norm",
    "depthwise",
    "residual",
    "concat",
    "earlier",
    "excite",
    "gate",
    "pool",
    "group",
    "layer",
]


@settings(max_examples=5, deadline=None, derandomize=True)
@given(
    blocks=st.lists(st.tuples(st.sampled_from(BLOCKS), st.integers(2, 5)), min_size=2, max_size=5),
    seed=st.integers(0, 2**16),
)
def test_any_architecture(blocks, seed):
    model, x = Model(Drawn(tuple(blocks))), normal(seed, 2, 4, 4, 2)
    variables = variables_of(model.module, x, seed=seed)
    groups = groups_of(model, variables, x)
    kept = kept_at_random(groups, seed, share=0.4)
    random = np.random.default_rng(seed)
    made = [name for name in groups.sizes if random.random() < 0.5]
    masks = masks_of(groups, kept, variables["params"], made)
    found = shrunk_is_masked(model, masks, variables, x, groups=groups)
    for name in set(groups.sizes) - set(made):
        assert (found.kept[name] <= kept[name]).all()
