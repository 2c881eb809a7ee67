"""Modules of one's own: whatever their layers are called, the folded model is the model."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import tree
from kdjax.models import CNN, Classifier, EncoderProjector, Folded, Projector, fold
from kdjax.shrink import Narrowed
from kdjax.types import BadInput


def _norm(**settings):
    return nn.BatchNorm(use_running_average=True, **settings)


class Net(nn.Module):
    """Two layers and two norms; fields say which."""

    layer: nn.Module
    norm: nn.Module

    @nn.compact
    def __call__(self, x):
        return nn.Dense(2, name="head")(nn.relu(self.norm(self.layer(x))).mean((1, 2)))


class Shared(nn.Module):
    """One norm behind two convolutions."""

    @nn.compact
    def __call__(self, x):
        norm = _norm(epsilon=0.03, name="norm")
        return norm(nn.Conv(4, (3, 3), name="a")(x)) + norm(nn.Conv(4, (1, 1), name="b")(x))


class Nested(nn.Module):
    """Named as the blocks of kdjax are, with another norm."""

    @nn.compact
    def __call__(self, x, *, train):
        x = nn.Conv(4, (3, 3), name="conv")(x)
        x = nn.BatchNorm(not train, epsilon=1e-3, name="norm")(x)
        return Net(nn.Conv(3, (3, 3)), _norm(epsilon=0.5))(nn.relu(x))


def _images(*shape):
    return jnp.asarray(np.random.default_rng(1).normal(size=shape or (3, 5, 6, 4)), jnp.float32)


def _drawn(module, *inputs, **kwargs):
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), *inputs, **kwargs))
    random = np.random.default_rng(2)

    def one(path, leaf):
        low = 0.2 if jax.tree_util.keystr(path[-1:], simple=True) == "var" else -1.0
        return jnp.asarray(random.uniform(low, 1.0, leaf.shape), leaf.dtype)

    return jax.tree_util.tree_map_with_path(one, shapes)


@pytest.mark.parametrize(
    "module",
    [
        Net(nn.Conv(6, (3, 3)), _norm()),
        Net(nn.Conv(6, (3, 3)), _norm(epsilon=0.3, momentum=0.5)),
        Net(nn.Conv(6, (3, 3), use_bias=False), _norm(use_scale=False)),
        Net(nn.Conv(6, (3, 3)), _norm(use_bias=False)),
        Net(nn.Conv(6, (3, 3)), _norm(use_bias=False, use_scale=False, epsilon=0.1)),
        Net(nn.Conv(8, (3, 3), feature_group_count=4), _norm(epsilon=1e-3)),
        Net(nn.Conv(6, (3, 3), (2, 2), "VALID", kernel_dilation=2), _norm(epsilon=1e-3)),
        Net(nn.Conv(6, (3, 3)), _norm(axis=3)),
        Net(nn.ConvTranspose(6, (3, 3), (2, 2)), _norm(epsilon=1e-3)),
        Net(nn.ConvTranspose(6, (2, 3), (2, 2), transpose_kernel=True), _norm(epsilon=1e-3)),
        Net(nn.ConvLocal(3, (3, 3)), _norm(epsilon=1e-3)),
        Net(nn.Dense(6), _norm(epsilon=1e-3)),
        Net(nn.DenseGeneral((2, 3)), _norm(epsilon=1e-3)),
        Net(nn.DenseGeneral((2, 3), use_bias=False), _norm(epsilon=1e-3)),
        Net(nn.ConvLocal(3, (3, 3), use_bias=False), _norm(epsilon=1e-3)),
        Shared(),
    ],
    ids=lambda module: type(getattr(module, "layer", module)).__name__,
)
def test_the_folded_model_is_the_model(module):
    images = _images()
    variables = _drawn(module, images)
    folded = fold(module, variables, images)
    assert set(folded) == {"params"}
    assert not any("norm" in name for name in tree.named_leaves(folded))
    expected = module.apply(variables, images)
    found = Folded(module).apply(folded, images)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_the_epsilon_and_the_bias_of_ones_own_block_count():
    """Worked out here in float64: names alone say nothing of an epsilon."""
    module, images = Nested(), _images()
    variables = _drawn(module, images, train=False)
    folded = fold(module, variables, images, train=False)["params"]["conv"]
    params, stats = variables["params"], variables["batch_stats"]["norm"]
    scale = np.float64(params["norm"]["scale"]) / np.sqrt(np.float64(stats["var"]) + 1e-3)
    bias = np.float64(params["conv"]["bias"]) - stats["mean"]
    bias = bias * scale + params["norm"]["bias"]
    np.testing.assert_allclose(
        folded["kernel"], np.float64(params["conv"]["kernel"]) * scale, rtol=1e-5
    )
    np.testing.assert_allclose(folded["bias"], bias, rtol=1e-4, atol=1e-6)
    # And under jit, with shapes for the images, as a stage has it.
    shapes = jax.ShapeDtypeStruct(images.shape, images.dtype)
    again = jax.jit(lambda variables: fold(module, variables, shapes, train=False))(variables)
    np.testing.assert_allclose(again["params"]["conv"]["bias"], folded["bias"], rtol=1e-6)


def test_the_dense_layers_of_a_projector_fold_too():
    module, images = EncoderProjector(CNN((4,)), Projector((6, 5, 3))), _images(2, 6, 6, 3)
    variables = _drawn(module, images, train=False)
    folded = fold(module, variables, images, train=False)
    expected = module.apply(variables, images, train=False)["projections"]
    found = Folded(module).apply(folded, images, train=False)["projections"]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_a_narrowed_model_folds_as_any_other():
    module = Narrowed(CNN((4,)), {"block0/conv": {"features": 3}})
    images = _images(2, 6, 6, 3)
    variables = _drawn(module, images, train=False)
    found = fold(module, variables, images, train=False)["params"]["block0"]["conv"]
    norm, stats = variables["params"]["block0"]["norm"], variables["batch_stats"]["block0"]["norm"]
    scale = np.float64(norm["scale"]) / np.sqrt(np.float64(stats["var"]) + 1e-5)
    expected = np.float64(norm["bias"]) - np.float64(stats["mean"]) * scale
    np.testing.assert_allclose(found["bias"], expected, rtol=1e-5, atol=1e-6)


class Standardised(nn.Conv):
    """A convolution that is none of linen's: its kernel is changed first."""

    @nn.compact
    def __call__(self, x):
        return super().__call__(x) * 2.0


class First(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Conv(3, (3, 3), name="conv")(_norm(name="norm")(x))


class Rectified(nn.Module):
    @nn.compact
    def __call__(self, x):
        return _norm(name="norm")(nn.relu(nn.Conv(3, (3, 3), name="conv")(x)))


class ReadTwice(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.Conv(3, (3, 3), name="conv")(x)
        return x + _norm(name="norm")(x)


class TwoNorms(nn.Module):
    @nn.compact
    def __call__(self, x):
        conv = nn.Conv(4, (3, 3), name="conv")
        return _norm(name="other")(conv(_norm(name="norm")(conv(x))))


class TwoLayers(nn.Module):
    """Two norms, each behind the one convolution and one of them behind another, too."""

    @nn.compact
    def __call__(self, x):
        conv, norm = nn.Conv(4, (3, 3), name="conv"), _norm(name="norm")
        x = norm(nn.Conv(4, (1, 1), name="alone")(nn.relu(norm(conv(x)))))
        return _norm(name="last")(nn.Conv(3, (1, 1), name="end")(_norm(name="other")(conv(x))))


class Told(nn.Module):
    """A norm that is told in the call what to do, and one that can be folded."""

    @nn.compact
    def __call__(self, x, *, train=False):
        x = nn.BatchNorm(name="norm")(x, use_running_average=not train)
        return _norm(name="last")(nn.Conv(3, (3, 3), name="conv")(nn.relu(x)))


@pytest.mark.parametrize(
    ("module", "left"),
    [
        (First(), ["norm"]),
        (Rectified(), ["norm"]),
        (ReadTwice(), ["norm"]),
        (TwoNorms(), ["norm", "other"]),
        (TwoLayers(), ["norm", "other"]),
        (Told(), ["norm"]),
        (Net(nn.Conv(5, (3, 3)), _norm(axis=1)), ["norm"]),
        (Net(Standardised(3, (3, 3)), _norm()), ["norm"]),
    ],
    ids=lambda x: type(x).__name__ if isinstance(x, nn.Module) else "",
)
def test_what_cannot_be_folded_stays_as_it_is(module, left):
    images = _images()
    variables = _drawn(module, images)
    folded = fold(module, variables, images)
    assert sorted(folded["batch_stats"]) == left
    for name in left:
        for kind in ("params", "batch_stats"):
            jax.tree.map(np.testing.assert_array_equal, folded[kind][name], variables[kind][name])
    assert not {"last"} & folded["params"].keys()
    expected = module.apply(variables, images)
    found = Folded(module).apply(folded, images)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_the_statistics_that_are_left_are_those_of_training_too():
    module, images = Told(), _images()
    folded = fold(module, _drawn(module, images), images)
    expected = Folded(module).apply(folded, images)
    found = Folded(module).apply(folded, images, train=True)
    np.testing.assert_array_equal(found, expected)


def test_statistics_of_the_batch_are_refused():
    module, images = Net(nn.Conv(3, (3, 3)), nn.BatchNorm(False)), _images()
    variables = _drawn(module, images)
    line = "^normalisations that take the statistics of their batch: norm; fold in evaluation$"
    with pytest.raises(BadInput, match=line):
        fold(module, variables, images)


def test_variables_without_their_model_are_refused():
    module, images = Nested(), _images()
    variables = _drawn(module, images, train=False)
    with pytest.raises(BadInput, match="give the model first"):
        fold(variables)


def test_arrays_are_folded_without_a_program(compiled):
    """Each shape of each operation would be one; what is traced gives the same."""
    net = Classifier(CNN(widths=(5, 7)), 3)
    images = jnp.ones((2, 8, 8, 1))
    variables = jax.jit(lambda: net.init(jax.random.key(0), images, train=True))()
    compiled.clear()
    found = fold(net, variables, images, train=False)
    assert compiled == []
    traced = jax.jit(lambda variables: fold(net, variables, images, train=False))(variables)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), found, traced)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(found))


def test_what_is_not_finite_stays_so_without_a_warning():
    net = Classifier(CNN(widths=(4,)), 3)
    images = jnp.ones((2, 8, 8, 1))
    variables = jax.device_get(jax.jit(lambda: net.init(jax.random.key(0), images, train=True))())
    variables = jax.tree.map(lambda x: np.full_like(x, -1.0), variables)
    found = fold(net, variables, images, train=False)
    assert any(np.isnan(leaf).any() for leaf in jax.tree.leaves(found))
