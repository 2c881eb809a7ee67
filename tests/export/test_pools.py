"""Pooling with padding, in files: one operator each, and no padding is above a negative value."""

import jax.numpy as jnp
import numpy as np
import onnx
import pytest
from flax import linen as nn
from jax import lax

from kdjax.export import load_onnx, write_onnx
from kdjax.types import Field

SHAPE = (9, 10, 3)
KERNEL = jnp.asarray(np.random.default_rng(1).normal(size=(3, 3, 3, 4)), jnp.float32)


def _conv(x):
    """Of images; what comes out is negative nearly everywhere."""
    numbers = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, KERNEL, (1, 1), "SAME", dimension_numbers=numbers) - 20.0


def _reduced(x, windows, strides, padding, **more):
    return lax.reduce_window(x, -jnp.inf, lax.max, windows, strides, padding, **more)


def _largest(x, window, strides, padding):
    return nn.max_pool(x, window, strides, padding)


NONE = (0, 0)
PADDED = ((1, 1), (1, 1))
# What pools, and the paddings of the operators that it becomes.
POOLS = {
    "the stem of ResNet": (
        lambda x: nn.pool(x, -jnp.inf, lax.max, (3, 3), (2, 2), PADDED),
        [[1, 1, 1, 1]],
    ),
    "one side": (lambda x: _largest(x, (3, 2), (2, 1), ((0, 2), (1, 0))), [[0, 1, 2, 0]]),
    "of lax": (
        lambda x: _reduced(x, (1, 3, 3, 1), (1, 2, 2, 1), (NONE, (1, 1), (1, 0), NONE)),
        [[1, 1, 1, 0]],
    ),
    "one axis": (lambda x: _largest(x.mean(1), (3,), (2,), ((1, 1),))[:, None], [[1, 1]]),
    "two": (
        lambda x: _largest(_largest(x, (3, 3), (2, 2), PADDED), (2, 2), (1, 1), PADDED),
        [[1, 1, 1, 1], [1, 1, 1, 1]],
    ),
    "none": (lambda x: _largest(x, (3, 3), (2, 2), "VALID"), [None]),
    "windows in the padding": (
        lambda x: jnp.maximum(_largest(x, (2, 2), (1, 1), ((2, 2), NONE)), -99.0),
        [None],
    ),
    "the smallest": (lambda x: nn.pool(x, jnp.inf, lax.min, (3, 3), (2, 2), PADDED), [None]),
    "channels": (
        lambda x: _reduced(x, (1, 2, 2, 2), (1, 2, 2, 1), (NONE, (1, 1), (1, 1), NONE)),
        [],
    ),
    "holes": (
        lambda x: _reduced(
            x, (1, 2, 2, 1), (1, 2, 2, 1), (NONE, *PADDED, NONE), window_dilation=(1, 2, 2, 1)
        ),
        [],
    ),
    "sums": (lambda x: nn.pool(x, 0.0, lax.add, (3, 3), (2, 2), PADDED), []),
    "means": (lambda x: nn.avg_pool(x, (3, 3), (2, 2), PADDED), []),
}
QUICK = ("the stem of ResNet", "one side", "of lax", "windows in the padding")


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[] if n in QUICK else [pytest.mark.thorough]) for n in POOLS],
)
def test_a_padded_pooling_in_onnx(name, tmp_path):
    pool, expected = POOLS[name]

    def predict(images):
        return pool(_conv(images)).mean((1, 2))

    path = tmp_path / "m.onnx"
    write_onnx(predict, path, inputs={"image": Field(SHAPE, "float32")})
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    images = np.random.default_rng(0).normal(size=(3, *SHAPE)).astype(np.float32)
    live = np.asarray(predict(images))
    found = load_onnx(path, threads=1)(images)
    np.testing.assert_allclose(found, live, rtol=0, atol=2e-6 * np.abs(live).max())
    pads = []
    for node in model.graph.node:
        if node.op_type == "MaxPool":
            given = {a.name: list(a.ints) for a in node.attribute}
            pads.append(given.get("pads"))
            assert "auto_pad" not in given or "pads" not in given
    assert pads == expected
    if expected and None not in expected:
        assert not {"Pad", "Slice"} & {node.op_type for node in model.graph.node}
