import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import tree
from kdjax.models import Bottleneck, Classifier, Compute, ResNet, cifar_resnet, resnet18, resnet50
from kdjax.types import BadInput

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)


def _shapes(model, image=(2, 32, 32, 3)):
    return jax.eval_shape(lambda x: model.init(KEY, x, train=False), jnp.zeros(image))


@pytest.mark.parametrize(
    ("encoder", "classes", "published"),
    [
        # The student and teacher sizes of the CIFAR-100 distillation tables (RepDistiller, DKD, DIST).
        (cifar_resnet(20), 100, 278_324),
        (cifar_resnet(56), 100, 861_620),
        (cifar_resnet(8, multiplier=4), 100, 1_233_540),
        (cifar_resnet(32, multiplier=4), 100, 7_433_860),
        # kuangliu/pytorch-cifar, ResNet18.
        (resnet18(), 10, 11_173_962),
        (resnet18(width=16), 10, 701_466),
        (resnet50(), 10, 23_520_842),
        # torchvision.
        (resnet18(imagenet_stem=True), 1000, 11_689_512),
        (resnet50(imagenet_stem=True), 1000, 25_557_032),
    ],
    ids=[
        "resnet20",
        "resnet56",
        "resnet8x4",
        "resnet32x4",
        "resnet18",
        "resnet18-w16",
        "resnet50",
        "resnet18-imagenet",
        "resnet50-imagenet",
    ],
)
def test_parameters_are_those_published(encoder, classes, published):
    assert tree.size(_shapes(Classifier(encoder, classes))["params"]) == published


@pytest.mark.parametrize(
    ("encoder", "dim", "sides"),
    [
        (cifar_resnet(8), 64, [8, 4, 2]),
        (cifar_resnet(8, multiplier=4), 256, [8, 4, 2]),
        (resnet18(width=4), 32, [8, 4, 2, 1]),
        (ResNet(blocks=(1, 2), widths=(3, 5, 7), project_first=True), 7, [8, 4]),
    ],
)
def test_each_stage_after_the_first_halves_the_image(encoder, dim, sides):
    def run(x):
        variables = encoder.init(KEY, x, train=False)
        return encoder.apply(variables, x, train=False, capture_intermediates=True)

    features, seen = jax.eval_shape(run, jnp.zeros((2, 8, 8, 3)))
    assert (features.shape, features.dtype) == ((2, dim), jnp.float32)
    for stage, side in enumerate(sides):
        (block,) = seen["intermediates"][f"stage{stage}_block0"]["__call__"]
        assert block.shape == (2, side, side, encoder.widths[stage + 1])


def test_shortcuts_project_where_the_shape_changes_and_nowhere_else():
    def projected(encoder):
        return [
            block for block, inside in _shapes(encoder)["params"].items() if "shortcut" in inside
        ]

    assert projected(cifar_resnet(14)) == ["stage1_block0", "stage2_block0"]
    assert projected(cifar_resnet(14, multiplier=4)) == [f"stage{i}_block0" for i in range(3)]
    assert projected(cifar_resnet(14, multiplier=2)) == ["stage1_block0", "stage2_block0"]
    assert projected(resnet18(width=4)) == [f"stage{i}_block0" for i in (1, 2, 3)]
    assert projected(resnet50(width=4)) == [f"stage{i}_block0" for i in (0, 1, 2, 3)]
    # Stated, not found: equal widths may have a projection.
    assert projected(ResNet(blocks=(1,), widths=(4, 4), project_first=True)) == ["stage0_block0"]


def test_the_stride_of_a_bottleneck_is_in_its_middle():
    encoder = ResNet(blocks=(1, 1), widths=(3, 2, 4), project_first=True, block=Bottleneck)

    def run(x):
        variables = encoder.init(KEY, x, train=False)
        return encoder.apply(variables, x, train=False, capture_intermediates=True)

    features, seen = jax.eval_shape(run, jnp.zeros((2, 8, 8, 3)))
    assert features.shape == (2, 16)
    shapes = {
        name: inside["__call__"][0].shape[1:]
        for name, inside in seen["intermediates"]["stage1_block0"].items()
        if name != "__call__"
    }
    assert shapes == {
        "first": (8, 8, 4),
        "second": (4, 4, 4),
        "third": (4, 4, 16),
        "shortcut": (4, 4, 16),
    }


def test_the_stem_of_imagenet_strides_and_pools_as_pytorch_does():
    # A 7x7 kernel that is one in its middle sees the pixels 0, 2, 4, 6 of each axis; the pooling then
    # sees the first two of them and the last three. Biased down, so that padding with 0 would show.
    encoder = ResNet(blocks=(), widths=(1,), imagenet_stem=True, compute=Compute(folded=True))
    kernel = jnp.zeros((7, 7, 1, 1)).at[3, 3].set(1)
    variables = {"params": {"stem": {"conv": {"kernel": kernel, "bias": jnp.full(1, -3.0)}}}}
    image = jnp.arange(64.0).reshape(1, 8, 8, 1)
    found = encoder.apply(variables, image, train=False)
    pooled = [8 * row + column for row in (2, 6) for column in (2, 6)]
    np.testing.assert_allclose(found, [[np.mean(pooled) - 3]])


@pytest.mark.parametrize("depth", [-4, 0, 2, 7, 9, 18, 34])
def test_a_depth_that_is_not_6n_plus_2_is_refused(depth):
    with pytest.raises(BadInput, match=rf"encoder\.depth: {depth} is not 6n \+ 2"):
        cifar_resnet(depth)


def test_bfloat16_is_for_activations_alone():
    model = Classifier(cifar_resnet(8, compute=Compute(dtype=jnp.bfloat16)), 3)
    variables = _shapes(model)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype(jnp.float32)}

    def run(variables, x):
        return model.apply(
            variables, x, train=True, mutable=["batch_stats"], capture_intermediates=True
        )

    out, state = jax.eval_shape(run, variables, jnp.zeros((2, 8, 8, 3)))
    assert out["features"].dtype == out["logits"].dtype == jnp.float32
    assert {x.dtype for x in jax.tree.leaves(state["batch_stats"])} == {jnp.dtype(jnp.float32)}
    inside = tree.named_leaves(state["intermediates"]["encoder"])
    inside.pop("__call__/0")  # the features themselves
    assert {x.dtype for x in inside.values()} == {jnp.dtype(jnp.bfloat16)}


def test_a_block_by_hand():
    # One 1x1 image: every convolution is the middle of its kernel, and the norms start as identity
    # up to their epsilon.
    encoder = ResNet(blocks=(1,), widths=(2, 3), project_first=True)
    x = jnp.asarray(RNG.normal(size=(4, 1, 1, 2)), jnp.float32)

    def draw(path, leaf):
        if path[-1].key == "kernel":
            return jnp.asarray(RNG.normal(size=leaf.shape), leaf.dtype)
        return jnp.full(leaf.shape, float(path[-1].key in ("scale", "var")), leaf.dtype)

    variables = jax.tree_util.tree_map_with_path(draw, _shapes(encoder, x.shape))
    flat = tree.named_leaves(variables["params"])

    def conv(path, x):
        kernel = np.asarray(flat[f"{path}/conv/kernel"], np.float64)
        return x @ kernel[kernel.shape[0] // 2, kernel.shape[1] // 2] / np.sqrt(1 + 1e-5)

    stem = np.maximum(conv("stem", np.asarray(x)[:, 0, 0]), 0)
    inner = np.maximum(conv("stage0_block0/first", stem), 0)
    block = conv("stage0_block0/second", inner) + conv("stage0_block0/shortcut", stem)
    found = jax.jit(lambda: encoder.apply(variables, x, train=False))()
    np.testing.assert_allclose(found, np.maximum(block, 0), rtol=1e-4, atol=1e-6)


def test_a_bottleneck_by_hand():
    # As above: each 3x3 convolution of a 1x1 image is the middle of its kernel.
    block = Bottleneck(2, stride=1, project=False, compute=Compute())
    x = jnp.asarray(RNG.normal(size=(4, 1, 1, 8)), jnp.float32)

    def draw(path, leaf):
        if path[-1].key == "kernel":
            return jnp.asarray(RNG.normal(size=leaf.shape), leaf.dtype)
        return jnp.full(leaf.shape, float(path[-1].key in ("scale", "var")), leaf.dtype)

    variables = jax.tree_util.tree_map_with_path(draw, _shapes(block, x.shape))
    y = given = np.asarray(x, np.float64)[:, 0, 0]
    for name in ("first", "second", "third"):
        kernel = np.asarray(variables["params"][name]["conv"]["kernel"], np.float64)
        middle = kernel[kernel.shape[0] // 2, kernel.shape[1] // 2]
        y = (y if name == "first" else np.maximum(y, 0)) @ middle / np.sqrt(1 + 1e-5)
    found = jax.jit(lambda: block.apply(variables, x, train=False))()
    np.testing.assert_allclose(found[:, 0, 0], np.maximum(given + y, 0), rtol=1e-4, atol=1e-6)
