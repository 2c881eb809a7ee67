import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.models import ResNet, se_resnet
from kdjax.models.blocks import Compute
from kdjax.models.resnet import BasicBlock
from tests.shrink.parity import normal, variables_of


@pytest.mark.parametrize("rectified", [False, True])
def test_a_block_by_hand(rectified):
    """One pixel, whose mean over space is itself."""
    block = BasicBlock(
        4,
        1,
        False,
        Compute(folded=True),
        hidden=lambda channels: channels // 2,
        rectified=rectified,
    )
    x = normal(0, 5, 1, 1, 4)
    variables = variables_of(block, x, train=False)
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), variables["params"])

    def conv(y, name):
        return y @ params[name]["conv"]["kernel"][1, 1] + params[name]["conv"]["bias"]

    def dense(y, name):
        return y @ params["excite"][name]["kernel"] + params["excite"][name]["bias"]

    whole = np.asarray(x, np.float64)[:, 0, 0]
    y = conv(np.maximum(conv(whole, "first"), 0), "second")
    y = np.maximum(y, 0) if rectified else y
    gate = dense(np.maximum(dense(y, "reduce"), 0), "expand")
    assert gate.shape == (5, 4)
    expected = np.maximum(whole + y / (1 + np.exp(-gate)), 0)
    found = jax.jit(lambda: block.apply(variables, x, train=False))()
    np.testing.assert_allclose(found[:, 0, 0], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("depth", "caffe", "hidden"),
    [(18, False, [8, 8, 16, 32]), (18, True, [4, 8, 16, 32]), (50, False, [16, 32, 64, 128])],
)
def test_a_squeeze_has_a_sixteenth_of_the_channels(depth, caffe, hidden):
    whole = se_resnet(depth, caffe=caffe)
    encoder = dataclasses.replace(whole, blocks=(1, 1, 1, 1))
    image = jnp.zeros((1, 8, 8, 3))
    shapes = jax.eval_shape(lambda: encoder.init(jax.random.key(0), image, train=False))
    found = [
        shapes["params"][f"stage{i}_block0"]["excite"]["reduce"]["bias"].size for i in range(4)
    ]
    assert found == hidden


def test_the_stem_of_caffe_pools_without_a_padding_before():
    encoder = ResNet(
        (), (1,), imagenet_stem=True, pool_padding=(0, 1), compute=Compute(folded=True)
    )
    kernel = jnp.zeros((7, 7, 1, 1)).at[3, 3].set(1)
    variables = {"params": {"stem": {"conv": {"kernel": kernel, "bias": jnp.full(1, 1.0)}}}}
    image = -jnp.arange(64.0).reshape(1, 8, 8, 1)[:, ::-1, ::-1] / 100
    # What is left of the image by the stem, of each axis the pixels 0, 2, 4 and 6; of these the first
    # three, and the last two.
    found = encoder.apply(variables, image, train=False)
    left = 1 + np.asarray(image)[0, ::2, ::2, 0]
    pooled = [
        left[a, b].max() for a in (slice(0, 3), slice(2, 4)) for b in (slice(0, 3), slice(2, 4))
    ]
    np.testing.assert_allclose(found, [[np.mean(pooled)]], rtol=1e-6)
