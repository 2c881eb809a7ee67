"""What holds for every encoder, built as a config asks for it."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import config, parse, tree
from kdjax.models import (
    VGG,
    Bottleneck,
    Classifier,
    Compute,
    MobileNet,
    PlainCNN,
    ResNet,
    ShuffleNetV2,
    WideResNet,
    ds_cnn,
    mlperf_resnet8,
    se_resnet,
    vit,
)
from kdjax.models.inverted_residual import Row, Squeeze
from kdjax.types import BadInput

KEY = jax.random.key(0)


def _config(fields):
    return parse.parse(config.Encoder, fields, "config.encoder")


@pytest.mark.parametrize(
    ("fields", "name", "dim"),
    [
        ({"name": "cnn", "widths": [4, 8]}, "cnn-4-8", 8),
        ({"name": "cifar_resnet", "depth": 8, "multiplier": 4}, "resnet8x4", 256),
        ({"name": "cifar_resnet", "depth": 20}, "resnet20", 64),
        ({"name": "resnet18"}, "resnet18", 512),
        ({"name": "resnet18", "width": 16}, "resnet18-w16", 128),
        ({"name": "resnet18", "imagenet_stem": True}, "resnet18-imagenet", 512),
        ({"name": "resnet50"}, "resnet50", 2048),
        (
            {"name": "resnet50", "width": 8, "imagenet_stem": True},
            "resnet50-w8-imagenet",
            256,
        ),
        ({"name": "resnet34", "width": 8}, "resnet34-w8", 64),
        ({"name": "se_resnet", "depth": 18, "width": 8}, "se-resnet18-w8", 64),
        (
            {"name": "se_resnet", "depth": 50, "width": 8, "imagenet_stem": True, "caffe": True},
            "se-resnet50-w8-imagenet-caffe",
            256,
        ),
        ({"name": "wide_resnet", "depth": 16, "widen": 2}, "wrn-16-2", 128),
        ({"name": "wide_resnet", "depth": 10}, "wrn-10-1", 64),
        ({"name": "shufflenet_v2", "multiplier": 0.5}, "shufflenet-v2-x0.5", 1024),
        ({"name": "mlperf_resnet8"}, "mlperf-resnet8", 64),
        ({"name": "ds_cnn", "blocks": 2}, "ds-cnn-d2", 64),
        ({"name": "plain_cnn"}, "plain-cnn-64-128-1000", 1000),
        ({"name": "vgg", "depth": 8}, "vgg8", 512),
        ({"name": "vgg", "depth": 13, "width": 8, "pools": 4}, "vgg13-w8-p4", 64),
        ({"name": "mobilenet_v2"}, "mobilenet-v2", 1280),
        ({"name": "mobilenet_v2", "multiplier": 0.5}, "mobilenet-v2-x0.5", 1280),
        ({"name": "mobilenet_v2", "multiplier": 2}, "mobilenet-v2-x2", 2560),
        ({"name": "mobilenet_v3", "size": "small"}, "mobilenet-v3-small", 1024),
        (
            {"name": "mobilenet_v3", "size": "large", "multiplier": 0.75, "imagenet_stem": True},
            "mobilenet-v3-large-x0.75-imagenet",
            960,
        ),
        ({"name": "efficientnet_b0"}, "efficientnet-b0", 1280),
        ({"name": "efficientnet_b0", "multiplier": 0.5}, "efficientnet-b0-x0.5", 640),
        ({"name": "efficientnet_lite0"}, "efficientnet-lite0", 1280),
        (
            {"name": "efficientnet_lite2", "multiplier": 0.25, "imagenet_stem": True},
            "efficientnet-lite2-x0.25-imagenet",
            320,
        ),
        (
            {
                "name": "efficientnet_lite1",
                "multiplier": 0.25,
                "epsilon": 1e-3,
                "momentum": 0.99,
                "padding": "same",
            },
            "efficientnet-lite1-x0.25-eps0.001-mom0.99-same",
            320,
        ),
        (
            {"name": "convnext", "depths": [1, 2], "widths": [4, 8]},
            "convnext-d1-2-w4-8",
            8,
        ),
        (
            {"name": "convnext", "depths": [1], "widths": [4], "patch": 2, "layer_scale": None},
            "convnext-d1-w4-p2-no_ls",
            4,
        ),
        ({"name": "vit_small", "depth": 1}, "vit-small-d1-p16", 384),
        (
            {
                "name": "vit_tiny",
                "depth": 1,
                "registers": 4,
                "pool": "class_and_mean",
                "layer_scale": 1e-5,
            },
            "vit-tiny-d1-p16-reg4-pool_class_and_mean-ls1e-05",
            384,
        ),
        (
            {"name": "vit", "depth": 1, "class_token": True, "gelu": "exact", "qkv_bias": False},
            "vit-w192-d1-h3-m768-p4-class-gelu_exact-no_qkv_bias",
            192,
        ),
        ({"name": "vit"}, "vit-w192-d12-h3-m768-p4", 192),
        ({"name": "vit", "width": 8, "heads": 2, "depth": 1}, "vit-w8-d1-h2-m768-p4", 8),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_config_is_built_and_named(fields, name, dim):
    found = _config(fields)
    assert found.title == name
    encoder = found.module(Compute())
    image = jnp.zeros((2, 32, 32, 3))
    features, _ = jax.eval_shape(lambda: encoder.init_with_output(KEY, image, train=True))
    assert (features.shape, features.dtype) == ((2, dim), jnp.float32)
    spectrum = jnp.zeros((2, 32, 48, 2))
    features, _ = jax.eval_shape(lambda: encoder.init_with_output(KEY, spectrum, train=True))
    assert features.shape == (2, dim)


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"name": "cnn", "widths": []}, "config.encoder.widths: none given; give at least one"),
        ({"name": "cnn", "widths": [4, 0]}, "config.encoder.widths[1]: 0 is not in [1, 2^20]"),
        (
            {"name": "cifar_resnet", "depth": 8, "multiplier": 0},
            "config.encoder.multiplier: 0 is not in [1, 100]",
        ),
        ({"name": "cifar_resnet", "depth": 9}, "config.encoder.depth: 9 is not 6n + 2"),
        ({"name": "resnet18", "width": -1}, "config.encoder.width: -1 is not in [1, 2^20]"),
        ({"name": "resnet50", "width": 0}, "config.encoder.width: 0 is not in [1, 2^20]"),
        ({"name": "se_resnet", "depth": 19}, "config.encoder.depth: 19 is not one of 18, 34, 50"),
        ({"name": "wide_resnet", "depth": 18}, "config.encoder.depth: 18 is not 6n + 4"),
        (
            {"name": "wide_resnet", "depth": 16, "widen": 0},
            "config.encoder.widen: 0 is not in [1, 100]",
        ),
        (
            {"name": "shufflenet_v2", "multiplier": 0.75},
            "config.encoder.multiplier: 0.75 is not one of the paper's; take 0.5, 1, 1.5, 2",
        ),
        ({"name": "ds_cnn", "blocks": 0}, "config.encoder.blocks: 0 is not in [1, 2^10]"),
        ({"name": "plain_cnn", "widths": []}, "config.encoder.widths: none given; give at least"),
        ({"name": "plain_cnn", "hidden": 0}, "config.encoder.hidden: 0 is not in [1, 2^20]"),
        ({"name": "vgg", "depth": 9}, "config.encoder.depth: 9 is not one of 8, 11, 13, 16, 19"),
        ({"name": "vgg", "depth": 8, "width": 0}, "config.encoder.width: 0 is not in [1, 2^20]"),
        ({"name": "vgg", "depth": 8, "pools": 5}, "config.encoder.pools: 5 is not in [0, 4]"),
        ({"name": "vgg", "depth": 8, "pools": -1}, "config.encoder.pools: -1 is not in [0, 4]"),
        (
            {"name": "mobilenet_v2", "multiplier": 0.0},
            "config.encoder.multiplier: 0.0 is not in (0, 100]",
        ),
        (
            {"name": "mobilenet_v3", "size": "small", "multiplier": -0.5},
            "config.encoder.multiplier: -0.5 is not in (0, 100]",
        ),
        (
            {"name": "mobilenet_v3", "size": "large", "multiplier": 0},
            "config.encoder.multiplier: 0.0 is not in (0, 100]",
        ),
        (
            {"name": "efficientnet_b0", "multiplier": -1},
            "config.encoder.multiplier: -1.0 is not in (0, 100]",
        ),
        ({"name": "vit", "width": 0}, "config.encoder.width: 0 is not in [1, 2^20]"),
        ({"name": "vit", "depth": 0}, "config.encoder.depth: 0 is not in [1, 2^10]"),
        ({"name": "vit", "heads": -3}, "config.encoder.heads: -3 is not in [1, 2^20]"),
        ({"name": "vit", "mlp": 0}, "config.encoder.mlp: 0 is not in [1, 2^20]"),
        ({"name": "vit", "patch": 0}, "config.encoder.patch: 0 is not in [1, 2^14]"),
        (
            {"name": "efficientnet_lite0", "epsilon": 0.0},
            "config.encoder.epsilon: 0.0 is not in (0, inf)",
        ),
        (
            {"name": "efficientnet_lite3"},
            "config.encoder.name: 'efficientnet_lite3' is not one of",
        ),
        (
            {"name": "convnext", "depths": [1, 1]},
            "config.encoder.depths: 2 depths and 4 widths",
        ),
        (
            {"name": "vit", "pool": "class"},
            "config.encoder.pool: class needs a class token",
        ),
        (
            {"name": "vit", "positions": "class"},
            "config.encoder.positions: there is no class token",
        ),
        (
            {"name": "vit", "positions": "all"},
            "config.encoder.positions: all tokens are those",
        ),
        (
            {"name": "vit_tiny", "class_token": False},
            "config.encoder.pool: class needs a class token",
        ),
        ({"name": "vit", "heads": 5}, "config.encoder.heads: 5 do not divide the width of 192"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(fields, line):
    with pytest.raises(BadInput) as caught:
        _config(fields).module(Compute())
    assert str(caught.value).startswith(line)
    assert "\n" not in str(caught.value)


def _bottlenecks(compute):
    return ResNet(blocks=(2,), widths=(4, 3), project_first=True, block=Bottleneck, compute=compute)


def _vgg(compute):
    return VGG(stages=((4,), (6,)), pools=1, compute=compute)


def _mobilenet(compute):
    squeeze = Squeeze(width=3, activation=nn.relu, gate=nn.hard_sigmoid)
    common = {"kernel_size": 3, "features": 4, "activation": nn.hard_swish}
    return MobileNet(
        stem_width=4,
        stem_stride=2,
        rows=(
            Row(expanded=None, stride=1, residual=True, squeeze=squeeze, **common),
            Row(expanded=8, stride=2, residual=False, **common),
        ),
        last_width=6,
        hidden_width=5,
        activation=nn.hard_swish,
        compute=compute,
    )


def _vit(compute):
    return vit(width=6, depth=1, heads=2, mlp=5, patch=8, compute=compute)


def _excited(compute):
    whole = se_resnet(18, width=8, compute=compute)
    return dataclasses.replace(whole, blocks=(1,), widths=(8, 8))


def _wide(compute):
    return WideResNet(blocks=(2, 1), widths=(4, 5, 6), compute=compute)


def _shuffled(compute):
    return ShuffleNetV2(4, (8,), (2,), 6, imagenet_stem=True, compute=compute)


def _tiny(compute):
    return mlperf_resnet8(width=3, compute=compute)


def _spoken(compute):
    return ds_cnn(width=4, blocks=1, compute=compute)


def _plain(compute):
    return PlainCNN((4, 5), hidden=6, compute=compute)


TINY = pytest.mark.parametrize(
    "encoder",
    [
        _bottlenecks,
        _vgg,
        _mobilenet,
        _vit,
        *(
            pytest.param(more, marks=[pytest.mark.thorough])
            for more in (_excited, _shuffled, _tiny, _spoken, _plain)
        ),
        _wide,
    ],
)


@TINY
def test_gradients_are_finite_and_reach_every_parameter(encoder):
    rng = np.random.default_rng(0)
    model = encoder(Compute())
    image, weights = (
        jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in ((4, 16, 16, 3), (4, 1))
    )
    shapes = jax.eval_shape(lambda: model.init(KEY, image, train=False))
    variables = jax.tree_util.tree_map_with_path(
        lambda path, leaf: (
            jnp.ones(leaf.shape)
            if path[-1].key in ("scale", "var")
            else jnp.asarray(rng.normal(0, 0.3, leaf.shape), leaf.dtype)
        ),
        shapes,
    )

    @jax.jit
    def run(variables):
        state = {name: value for name, value in variables.items() if name != "params"}

        def objective(params):
            features, state_after = model.apply(
                {"params": params, **state}, image, train=True, mutable=["batch_stats"]
            )
            return (weights * features**2).sum(), (features, state_after)

        grads, (trained, state_after) = jax.grad(objective, has_aux=True)(variables["params"])
        return grads, trained, state_after, model.apply(variables, image, train=False)

    grads, trained, state, evaluated = run(variables)
    for name, grad in tree.named_leaves(grads).items():
        assert np.isfinite(grad).all(), name
        # A key's bias adds the same to every score of a query, which no softmax sees.
        if not name.endswith("attention/key/bias"):
            assert np.abs(grad).max() > 0, name
    assert np.isfinite(trained).all()
    assert np.isfinite(evaluated).all()
    # Training normalises with the batch, evaluation with what has been seen; a ViT does neither.
    differ = not np.allclose(trained, evaluated, rtol=1e-3, atol=1e-4)
    moved = [
        not np.array_equal(new, old)
        for new, old in zip(
            jax.tree.leaves(state), jax.tree.leaves(variables.get("batch_stats", {})), strict=True
        )
    ]
    assert differ == bool(moved) == (encoder not in (_vit, _plain))
    assert all(moved)


@TINY
def test_bfloat16_is_for_activations_alone(encoder):
    model = Classifier(encoder(Compute(dtype=jnp.bfloat16)), 3)
    image = jnp.zeros((2, 16, 16, 3))
    variables = jax.eval_shape(lambda: model.init(KEY, image, train=True))
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype(jnp.float32)}

    def run(variables):
        return model.apply(
            variables, image, train=True, mutable=["batch_stats"], capture_intermediates=True
        )

    out, state = jax.eval_shape(run, variables)
    assert out["features"].dtype == out["logits"].dtype == jnp.float32
    assert {x.dtype for x in jax.tree.leaves(state.get("batch_stats", {}))} <= {
        jnp.dtype(jnp.float32)
    }
    inside = tree.named_leaves(state["intermediates"]["encoder"])
    inside.pop("__call__/0")  # the features themselves
    assert {x.dtype for x in inside.values()} == {jnp.dtype(jnp.bfloat16)}
