import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import tree
from kdjax.models import VGG, Classifier, Compute, vgg

KEY = jax.random.key(0)


@pytest.mark.parametrize(
    ("depth", "published"), [(8, 3_965_028), (13, 9_462_180), (11, None), (16, None), (19, None)]
)
def test_parameters_are_those_published_without_the_biases_of_convolutions(depth, published):
    # RepDistiller, 100 classes.
    convolutions = {8: 5, 11: 8, 13: 10, 16: 13, 19: 16}
    encoder = vgg(depth)
    model, image = Classifier(encoder, 100), jnp.zeros((1, 32, 32, 3))
    params = jax.eval_shape(lambda: model.init(KEY, image, train=False))["params"]
    assert len(params["encoder"]) == convolutions[depth]
    widths = [width for stage in encoder.stages for width in stage]
    assert widths[0] == 64
    assert widths[-1] == 512
    if published is not None:
        assert tree.size(params) == published - sum(widths)


@pytest.mark.parametrize(
    ("pools", "side", "sides"),
    [
        (3, 32, [32, 16, 8, 4, 4]),
        (4, 64, [64, 32, 16, 8, 4]),
        (0, 8, [8, 8, 8, 8, 8]),
        (3, 28, [28, 14, 7, 4, 4]),
        (4, 2, [2, 1, 1, 1, 1]),
    ],
)
def test_the_first_stages_halve_the_image_and_odd_sides_round_up(pools, side, sides):
    encoder = vgg(8, width=2, pools=pools)

    def run(x):
        variables = encoder.init(KEY, x, train=False)
        return encoder.apply(variables, x, train=False, capture_intermediates=True)

    features, seen = jax.eval_shape(run, jnp.zeros((2, side, side, 3)))
    assert (features.shape, features.dtype) == ((2, 16), jnp.float32)
    found = [seen["intermediates"][f"stage{i}_conv0"]["__call__"][0].shape for i in range(5)]
    assert [shape[1] for shape in found] == sides
    assert [shape[-1] for shape in found] == [2, 4, 8, 16, 16]


def test_pooling_takes_the_largest_of_four():
    encoder = VGG(stages=((1,),), pools=1, compute=Compute(folded=True))
    kernel = jnp.zeros((3, 3, 1, 1)).at[1, 1].set(1)
    variables = {"params": {"stage0_conv0": {"conv": {"kernel": kernel, "bias": jnp.zeros(1)}}}}
    image = jnp.asarray(np.random.default_rng(0).normal(size=(2, 4, 6, 1)), jnp.float32)
    found = encoder.apply(variables, image, train=False)
    blocks = np.asarray(image).reshape(2, 2, 2, 3, 2)
    expected = np.maximum(blocks.max(axis=(2, 4)), 0).mean((1, 2))
    np.testing.assert_allclose(found[:, 0], expected, rtol=1e-6)
