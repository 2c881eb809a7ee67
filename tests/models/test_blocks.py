import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import tree
from kdjax.models import (
    CNN,
    VGG,
    Bottleneck,
    Classifier,
    Compute,
    Convention,
    ConvNorm,
    MobileNet,
    ResNet,
    ShuffleNetV2,
    WideResNet,
    cifar_resnet,
    ds_cnn,
    fold,
    mlperf_resnet8,
    resnet18,
    se_resnet,
    vit,
    wide_resnet,
)
from kdjax.models.inverted_residual import Row, Squeeze

KEY = jax.random.key(0)
FOLDED = Compute(folded=True)


def _trained(model, image, seed=0):
    """Variables that look trained: no scale is one, no mean zero, and some scales are negative."""
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        name = path[-1].key
        if name == "kernel":
            return rng.normal(0, np.prod(leaf.shape[:-1]) ** -0.5, leaf.shape)
        if name == "var":
            return rng.uniform(0.2, 3, leaf.shape)
        return rng.normal(0, 1, leaf.shape)

    shapes = jax.eval_shape(lambda: model.init(KEY, image, train=False))
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: jnp.asarray(draw(path, leaf), leaf.dtype), shapes
    )


def _image(channels=3, seed=1):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(4, 8, 8, channels)), jnp.float32)


def _mobile(compute):
    squeeze = Squeeze(width=3, activation=nn.swish, gate=nn.sigmoid)
    return MobileNet(
        stem_width=4,
        stem_stride=1,
        rows=(
            Row(
                kernel_size=5,
                expanded=6,
                features=4,
                stride=1,
                activation=nn.hard_swish,
                residual=True,
                squeeze=squeeze,
            ),
            Row(
                kernel_size=3,
                expanded=None,
                features=5,
                stride=2,
                activation=nn.relu6,
                residual=False,
            ),
        ),
        last_width=6,
        hidden_width=5,
        activation=nn.hard_swish,
        compute=compute,
    )


def _of_tensorflow(compute):
    convention = Convention(epsilon=0.1, momentum=0.99, padding="same")
    return dataclasses.replace(_mobile(compute), convention=convention)


def _bottlenecks(compute):
    return ResNet(
        blocks=(1, 1),
        widths=(4, 3, 4),
        project_first=True,
        block=Bottleneck,
        imagenet_stem=True,
        compute=compute,
    )


def _excited(compute):
    whole = se_resnet(50, width=4, imagenet_stem=True, caffe=True, compute=compute)
    return dataclasses.replace(whole, blocks=(1, 1), widths=(4, 3, 4))


def _shuffled(compute):
    return ShuffleNetV2(4, (8,), (2,), 6, imagenet_stem=True, compute=compute)


@pytest.mark.parametrize(
    ("encoder", "first"),
    [
        (lambda compute: CNN((4, 8, 8), compute), "block0"),
        (lambda compute: cifar_resnet(8, multiplier=4, compute=compute), "stem"),
        (lambda compute: resnet18(width=8, compute=compute), "stem"),
        (_bottlenecks, "stem"),
        (lambda compute: VGG(stages=((4,), (6, 6)), pools=1, compute=compute), "stage0_conv0"),
        (_mobile, "block0/depthwise"),
        (_of_tensorflow, "block0/depthwise"),
        (_excited, "stage0_block0/third"),
        (lambda compute: WideResNet((2, 1), (4, 6, 8), compute=compute), "stage0_block0/first"),
        (lambda compute: wide_resnet(10, compute=compute), "stage0_block0/first"),
        (_shuffled, "stage0_unit0/left_depthwise"),
        (lambda compute: mlperf_resnet8(width=4, compute=compute), "stage1_block0/second"),
        (lambda compute: ds_cnn(width=8, blocks=1, compute=compute), "block0_depthwise"),
    ],
    ids=[
        "cnn",
        "resnet8x4",
        "resnet18",
        "bottlenecks",
        "vgg",
        "mobilenet",
        "of tensorflow",
        "se_resnet",
        "wide_resnet",
        "wrn10_1",
        "shufflenet",
        "mlperf_resnet8",
        "ds_cnn",
    ],
)
def test_a_folded_model_is_the_model_in_evaluation(encoder, first):
    image = _image()
    model, folded = Classifier(encoder(Compute()), 5), Classifier(encoder(FOLDED), 5)
    variables = _trained(model, image)
    assert min(tree.named_leaves(variables)[f"params/encoder/{first}/norm/scale"]) < 0
    expected = jax.jit(lambda v: model.apply(v, image, train=False))(variables)
    found = jax.jit(lambda v: folded.apply(v, image, train=False))(
        fold(model, variables, image, train=False)
    )
    for name in ("features", "logits"):
        scale = np.abs(expected[name]).max()
        assert scale > 1e-2
        np.testing.assert_allclose(found[name] / scale, expected[name] / scale, atol=1e-5)
    # A folded model takes exactly what `fold` gives.
    shapes = jax.eval_shape(lambda: folded.init(KEY, image, train=False))
    assert tree.differences(fold(model, variables, image, train=False), shapes) == []


def test_fold_leaves_a_transformer_as_it_is():
    sizes = {"width": 6, "depth": 1, "heads": 2, "mlp": 5, "patch": 4}
    model = Classifier(vit(**sizes), 3)
    variables = _trained(model, _image())
    found = fold(model, variables, _image(), train=False)
    jax.tree.map(np.testing.assert_array_equal, found, variables)
    folded = Classifier(vit(**sizes, compute=FOLDED), 3)
    shapes = jax.eval_shape(lambda: folded.init(KEY, _image(), train=False))
    assert tree.differences(found, shapes) == []


def test_fold_by_hand():
    model = ConvNorm(2, kernel_size=1)
    variables = {
        "params": {
            "conv": {"kernel": jnp.array([[[[3.0, 5.0]]]])},
            "norm": {"scale": jnp.array([2.0, -1.0]), "bias": jnp.array([0.5, 0.0])},
        },
        "batch_stats": {"norm": {"mean": jnp.array([1.0, -2.0]), "var": jnp.array([4.0, 0.25])}},
    }
    folded = fold(model, variables, jnp.zeros((1, 1, 1, 1)), train=False)
    assert set(folded) == {"params"}
    # 2 / sqrt(4) = 1 and -1 / sqrt(0.25) = -2, up to the epsilon of 1e-5.
    np.testing.assert_allclose(folded["params"]["conv"]["kernel"], [[[[3, -10]]]], rtol=1e-4)
    np.testing.assert_allclose(folded["params"]["conv"]["bias"], [0.5 - 1, 0 - 4], rtol=1e-4)
    # And the module agrees about where the epsilon is.
    x = jnp.full((1, 1, 1, 1), 7.0)
    found = ConvNorm(2, kernel_size=1, compute=FOLDED).apply(folded, x, train=False)
    np.testing.assert_allclose(found, model.apply(variables, x, train=False), rtol=1e-6)


def test_fold_keeps_the_zeros_of_kernels_and_makes_none():
    model = Classifier(CNN((4, 8)), 3)
    variables = _trained(model, _image())
    rng = np.random.default_rng(2)
    params = jax.tree_util.tree_map_with_path(
        lambda path, leaf: leaf * (rng.random(leaf.shape) < 0.3) if leaf.ndim > 1 else leaf,
        variables["params"],
    )
    found = fold(model, {**variables, "params": params}, _image(), train=False)
    folded = tree.named_leaves(found["params"])
    kernels = {n: k for n, k in tree.named_leaves(params).items() if n.endswith("kernel")}
    assert len(kernels) == 3
    for name, kernel in kernels.items():
        assert 0 < (kernel == 0).sum() < kernel.size
        np.testing.assert_array_equal(folded[name] == 0, kernel == 0)


def test_fold_leaves_what_is_no_convolution_as_it_is_and_its_argument_too():
    model = Classifier(CNN((4,)), 3)
    variables = _trained(model, _image())
    before = jax.tree.map(np.array, variables)
    folded = fold(model, variables, _image(), train=False)
    np.testing.assert_array_equal(
        folded["params"]["classifier"]["kernel"], before["params"]["classifier"]["kernel"]
    )
    jax.tree.map(np.testing.assert_array_equal, variables, before)


def test_fold_of_a_folded_model_changes_nothing():
    model = Classifier(CNN((4,)), 3)
    folded = fold(model, _trained(model, _image()), _image(), train=False)
    again = fold(Classifier(CNN((4,), FOLDED), 3), folded, _image(), train=False)
    jax.tree.map(np.testing.assert_array_equal, again, folded)


@pytest.mark.parametrize(("kernel_size", "side"), [(1, 8), (3, 8), (5, 8)])
def test_padding_keeps_the_side_and_stride_halves_it(kernel_size, side):
    def shape(stride, image=(1, 8, 8, 3)):
        model = ConvNorm(4, kernel_size=kernel_size, stride=stride)
        return jax.eval_shape(
            lambda x: model.init_with_output(KEY, x, train=False)[0], jnp.zeros(image)
        ).shape

    assert shape(1) == (1, side, side, 4)
    assert shape(2) == (1, side // 2, side // 2, 4)
    assert shape(2, (1, 7, 5, 3)) == (1, 4, 3, 4)  # odd sides round up, as PyTorch's do


def test_strides_pad_as_pytorch_does():
    # PyTorch's 3x3 stride 2 sees rows -1, 0, 1 first; XLA's "SAME" would see 0, 1, 2.
    model = ConvNorm(1, stride=2, compute=FOLDED)
    variables = {"params": {"conv": {"kernel": jnp.zeros((3, 3, 1, 1)), "bias": jnp.zeros(1)}}}
    variables["params"]["conv"]["kernel"] = variables["params"]["conv"]["kernel"].at[1, 1].set(1)
    image = jnp.arange(16.0).reshape(1, 4, 4, 1)
    found = model.apply(variables, image, train=False)
    np.testing.assert_array_equal(found[0, :, :, 0], [[0, 2], [8, 10]])


def test_evaluation_writes_no_statistics():
    model, image = ConvNorm(4), _image()
    variables = _trained(model, image)
    _, state = model.apply(variables, image, train=False, mutable=["batch_stats"])
    jax.tree.map(np.testing.assert_array_equal, state["batch_stats"], variables["batch_stats"])


def test_a_depthwise_convolution_keeps_its_channels_apart():
    model = ConvNorm(3, groups=3, compute=FOLDED)
    rng = np.random.default_rng(3)
    kernel, image = rng.normal(size=(3, 3, 1, 3)), rng.normal(size=(2, 5, 4, 3))
    padded = np.pad(image, ((0, 0), (1, 1), (1, 1), (0, 0)))
    expected = sum(
        padded[:, i : i + 5, j : j + 4] * kernel[i, j, 0] for i in range(3) for j in range(3)
    )
    variables = {"params": {"conv": {"kernel": jnp.asarray(kernel), "bias": jnp.zeros(3)}}}
    found = model.apply(variables, jnp.asarray(image, jnp.float32), train=False)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_a_depthwise_kernel_is_drawn_as_if_it_saw_all_channels():
    model, image = ConvNorm(512, groups=512), jnp.zeros((1, 1, 1, 512))
    draw = jax.jit(lambda: model.init(KEY, image, train=False)["params"]["conv"]["kernel"])
    assert float(draw().std()) == pytest.approx((2 / (9 * 512)) ** 0.5, rel=0.05)


@pytest.mark.parametrize("side", [7, 8])
@pytest.mark.parametrize(("kernel_size", "stride"), [(3, 1), (3, 2), (5, 2), (7, 2)])
def test_strides_pad_as_tensorflow_does_where_asked(kernel_size, stride, side):
    same = Convention(padding="same")
    model = ConvNorm(2, kernel_size=kernel_size, stride=stride, convention=same, compute=FOLDED)
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(kernel_size, kernel_size, 1, 2))
    image = rng.normal(size=(1, side, side, 1))
    # As its documentation says: as many outputs as ceil(side / stride), and the odd pixel behind.
    outputs = -(-side // stride)
    padded = max(0, (outputs - 1) * stride + kernel_size - side)
    wide = np.pad(image[0, :, :, 0], (padded // 2, padded - padded // 2))
    expected = np.zeros((outputs, outputs, 2))
    for i in range(outputs):
        for j in range(outputs):
            window = wide[i * stride :, j * stride :][:kernel_size, :kernel_size]
            expected[i, j] = np.einsum("hw,hwo->o", window, kernel[:, :, 0])
    params = {"conv": {"kernel": jnp.asarray(kernel, jnp.float32), "bias": jnp.zeros(2)}}
    found = model.apply({"params": params}, jnp.asarray(image, jnp.float32), train=False)
    np.testing.assert_allclose(found[0], expected, rtol=1e-4, atol=1e-5)


def test_a_convention_has_the_epsilon_and_the_momentum_of_the_norm():
    model = ConvNorm(2, kernel_size=1, convention=Convention(epsilon=1e-3, momentum=0.99))
    params = {
        "conv": {"kernel": jnp.ones((1, 1, 1, 2))},
        "norm": {"scale": jnp.ones(2), "bias": jnp.zeros(2)},
    }
    moments = {"mean": jnp.zeros(2), "var": jnp.array([1e-3, 3e-3])}
    variables = {"params": params, "batch_stats": {"norm": moments}}
    x = jnp.array([1.0, 3.0]).reshape(2, 1, 1, 1)
    found = model.apply(variables, x, train=False)
    expected = np.array([[1.0], [3.0]]) / np.sqrt([2e-3, 4e-3])
    np.testing.assert_allclose(found[:, 0, 0], expected, rtol=1e-5)
    # Folded, it has the same epsilon.
    folded = fold(model, variables, x, train=False)
    alone = ConvNorm(2, kernel_size=1, convention=model.convention, compute=FOLDED)
    np.testing.assert_allclose(alone.apply(folded, x, train=False)[:, 0, 0], expected, rtol=1e-5)
    _, state = model.apply(variables, x, train=True, mutable=["batch_stats"])
    np.testing.assert_allclose(state["batch_stats"]["norm"]["mean"], [0.02, 0.02], rtol=1e-5)
