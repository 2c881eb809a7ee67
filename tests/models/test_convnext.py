import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from kdjax import tree
from kdjax.models import convnext
from kdjax.types import BadInput

RNG = np.random.default_rng(0)


def _shapes(model, side):
    image = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
    return jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), image)


def test_a_convnext_by_hand():
    # Two stages of one block each; 9 pixels are two patches of 4, and one is left of two.
    model = convnext(depths=(1, 1), widths=(2, 3), patch=4, layer_scale=0.1)
    variables = jax.tree.map(
        lambda leaf: jnp.asarray(RNG.normal(size=leaf.shape), leaf.dtype), _shapes(model, 9)
    )
    p = {k: np.asarray(v, np.float64) for k, v in tree.named_leaves(variables["params"]).items()}
    image = RNG.normal(size=(1, 9, 9, 3))

    def norm(name, x):
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
        return x * p[f"{name}/scale"] + p[f"{name}/bias"]

    def patches(name, x, side):
        rows = x.shape[0] // side
        x = x[: rows * side, : rows * side].reshape(rows, side, rows, side, -1)
        return np.einsum("ahbwc,hwco->abo", x, p[f"{name}/kernel"]) + p[f"{name}/bias"]

    def block(name, x):
        padded = np.pad(x, ((3, 3), (3, 3), (0, 0)))
        y = np.zeros_like(x)
        for i in range(x.shape[0]):
            for j in range(x.shape[1]):
                window = padded[i : i + 7, j : j + 7]
                y[i, j] = (window * p[f"{name}/depthwise/kernel"][:, :, 0]).sum((0, 1))
        y = norm(f"{name}/norm", y + p[f"{name}/depthwise/bias"])
        y = y @ p[f"{name}/expand/kernel"][0, 0] + p[f"{name}/expand/bias"]
        y = y * special.ndtr(y)  # the exact GELU
        y = y @ p[f"{name}/project/kernel"][0, 0] + p[f"{name}/project/bias"]
        return x + p[f"{name}/scale"] * y

    x = block("stage0_block0", norm("stem_norm", patches("stem", image[0], 4)))
    x = block("stage1_block0", patches("stage1_down", norm("stage1_down_norm", x), 2))
    expected = norm("norm", x.mean((0, 1)))
    found = jax.jit(lambda v, x: model.apply(v, x, train=False))(
        variables, jnp.asarray(image, jnp.float32)
    )
    np.testing.assert_allclose(found[0], expected, rtol=1e-4, atol=1e-5)


def test_the_scales_begin_as_given_or_are_not_there():
    model = convnext(depths=(1,), widths=(4,), layer_scale=0.25)
    variables = model.init(jax.random.key(0), jnp.zeros((1, 4, 4, 3)), train=False)
    np.testing.assert_array_equal(variables["params"]["stage0_block0"]["scale"], [0.25] * 4)
    without = convnext(depths=(1,), widths=(4,), layer_scale=None)
    assert "scale" not in _shapes(without, 4)["params"]["stage0_block0"]


def test_an_image_of_which_nothing_is_left_is_refused():
    model = convnext(depths=(1, 1, 1), widths=(2, 2, 2), patch=4)
    with pytest.raises(BadInput, match=r"encoder\.patch: of an image of 15 x 15 .* at least 16"):
        _shapes(model, 15)
    _shapes(model, 16)


def test_a_width_for_each_depth():
    with pytest.raises(BadInput, match=r"encoder\.depths, encoder\.widths: 1 depths and 2 widths"):
        convnext(depths=(1,), widths=(2, 3))
