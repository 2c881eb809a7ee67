import jax
import jax.numpy as jnp
import numpy as np

from kdjax.models import ds_cnn, mlperf_resnet8
from kdjax.models.blocks import Compute
from kdjax.models.mlperf_tiny import SameConvNorm
from tests.shrink.parity import normal, variables_of


def test_a_convolution_pads_as_tensorflow_does():
    """Of 49 frames and 10 bands with a kernel of 10 and 4 and stride 2: 9 and 2 rows of zeros."""
    layer = SameConvNorm(1, (10, 4), stride=2, compute=Compute(folded=True))
    x = normal(0, 2, 49, 10, 1)
    variables = variables_of(layer, x, train=False)
    found = layer.apply(variables, x, train=False)
    assert found.shape == (2, 25, 5, 1)
    kernel = np.asarray(variables["params"]["conv"]["kernel"], np.float64)[:, :, 0, 0]
    whole = np.zeros((2, 58, 12))
    whole[:, 4:53, 1:11] = np.asarray(x)[..., 0]
    for row, column in ((0, 0), (3, 2), (24, 4)):
        window = whole[:, 2 * row : 2 * row + 10, 2 * column : 2 * column + 4]
        expected = (window * kernel).sum((1, 2)) + float(variables["params"]["conv"]["bias"][0])
        np.testing.assert_allclose(found[:, row, column, 0], expected, rtol=1e-4, atol=1e-5)


def test_the_norm_is_that_of_keras():
    layer, x = SameConvNorm(2, (1, 1)), normal(0, 2, 1, 1, 3)
    variables = jax.device_get(variables_of(layer, x, train=False))
    params, stats = variables["params"], variables["batch_stats"]["norm"]
    y = np.asarray(x, np.float64)[:, 0, 0] @ np.asarray(params["conv"]["kernel"], np.float64)[0, 0]
    y = (y - stats["mean"]) / np.sqrt(np.float64(stats["var"]) + 1e-3)
    expected = y * params["norm"]["scale"] + params["norm"]["bias"]
    found = layer.apply(variables, x, train=False)
    np.testing.assert_allclose(found[:, 0, 0], expected, rtol=1e-4, atol=1e-5)
    _, state = layer.apply(variables, x, train=True, mutable=["batch_stats"])
    batch = np.asarray(x, np.float64)[:, 0, 0] @ np.asarray(params["conv"]["kernel"])[0, 0]
    expected = 0.99 * stats["mean"] + 0.01 * batch.mean(0)
    np.testing.assert_allclose(state["batch_stats"]["norm"]["mean"], expected, rtol=1e-4, atol=1e-6)


def test_only_shortcuts_that_project_have_a_bias():
    image = jnp.zeros((1, 32, 32, 3))
    shapes = jax.eval_shape(lambda: mlperf_resnet8().init(jax.random.key(0), image, train=False))
    params = shapes["params"]
    assert "shortcut" not in params["stage0_block0"]
    for block, width in (("stage1_block0", 32), ("stage2_block0", 64)):
        assert params[block]["shortcut"]["bias"].shape == (width,)
        assert set(params[block]["first"]["conv"]) == {"kernel"}


def test_a_spectrogram_is_no_square():
    encoder, x = ds_cnn(), jnp.zeros((2, 49, 10, 1))
    features, _ = jax.eval_shape(
        lambda: encoder.init_with_output(jax.random.key(0), x, train=False)
    )
    assert features.shape == (2, 64)
